"""What a run tells its user at the end."""

from dataclasses import dataclass

from pyspark.sql.functions import col

from jobs.engine.ledger import Run, Totals
from jobs.engine.table import Table
from mkdm.columns import ERROR_CODE
from mkdm.errors import RejectRateError

RESULTS = {"score": "scored", "label": "labels", "rescore": "rescored"}
"""By job, what it calls the rows that it wrote."""


@dataclass(frozen=True)
class RunReport:
    """A complete run. Its `str` is the table that the command prints.

    Attributes:
        rejects: by error_code, how many pairs.
        tables: by table, where it is.
    """

    run: Run
    totals: Totals
    rejects: dict[str, int]
    tables: dict[str, str]

    @classmethod
    def of(cls, run: Run, totals: Totals, outputs: dict[str, Table]) -> "RunReport":
        """Gather the report of a run from the tables that it wrote."""
        rejects: dict[str, int] = {}
        if totals.rows_rejected:
            mine = outputs["rejected_pairs"].read().where(col("run_id") == run.run_id)
            rejects = {row[ERROR_CODE]: row["count"] for row in mine.groupBy(ERROR_CODE).count().collect()}
        return cls(run, totals, dict(sorted(rejects.items())), {name: out.location for name, out in outputs.items()})

    @property
    def reject_rate(self) -> float:
        """Share of the results that are rejects."""
        return self.totals.rows_rejected / max(1, self.totals.rows_written + self.totals.rows_rejected)

    def reasons(self) -> str:
        """The rejects by reason, on one line."""
        return ", ".join(f"{count:,} {code}" for code, count in self.rejects.items())

    def __str__(self) -> str:
        totals = self.totals
        rows = [
            ("rows read", f"{totals.rows_read:,}"),
            ("chunks", f"{self.run.chunks:,}"),
            (RESULTS.get(self.run.job, "written"), f"{totals.rows_written:,}"),
            ("rejected", f"{totals.rows_rejected:,}"),
            *((f"  {code}", f"{count:,}") for code, count in self.rejects.items()),
            *work_done(totals),
            ("model version", self.run.model_version),
            ("run", self.run.run_id),
            *self.tables.items(),
        ]
        return "\n".join(f"{name:<18}{value}" for name, value in rows)


def work_done(totals: Totals) -> list[tuple[str, str]]:
    """What the model had to do, as people read it: a name and a figure a line."""
    return [
        ("tokens", f"{totals.tokens:,}"),
        ("padding", f"{totals.padding_ratio:.1%}"),
        ("model loads", f"{totals.model_loads:,}"),
        ("seconds", f"{totals.seconds:,.1f}"),
        ("pairs/s", f"{totals.rows_read / totals.seconds:,.0f}" if totals.seconds else "–"),
    ]


def refuse_rejects(report: RunReport, max_reject_rate: float) -> None:
    """Fail a run that rejected too much; what it wrote stays.

    Raises:
        RejectRateError: says how much, why, and where the rejects are.
    """
    if report.reject_rate > max_reject_rate:
        raise RejectRateError(
            f"{report.reject_rate:.1%} of the pairs were rejected ({report.reasons()}), more than --max-reject-rate "
            f"{max_reject_rate:.1%}: see {report.tables['rejected_pairs']} where run_id = {report.run.run_id}"
        )
