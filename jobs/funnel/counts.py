"""The counts of each step of the funnel: stored in the table `funnel`, checked, and printed."""

from dataclasses import dataclass, field

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.engine import TABLES, Run, Table, Totals
from mkdm.columns import ERROR_CODE, RUN_ID


@dataclass
class StepCounts:
    """What a step of the funnel did, in rows; the names are those that the report prints, in this order."""

    step: str
    rows: dict[str, int] = field(default_factory=dict)
    read: int = 0
    rejected: int = 0

    def count_codes(self, coded: DataFrame, what: str) -> int:
        """Count an input's rows by error_code, and enter rows read and rejects; returned are those without a fault."""
        found = {row[ERROR_CODE]: row["count"] for row in coded.groupBy(ERROR_CODE).count().collect()}
        fit = int(found.pop(None, 0))
        self.rows[f"{what} read"] = fit + sum(found.values())
        self.rows |= {f"rejected: {code}": found[code] for code in sorted(found)}
        self.read += self.rows[f"{what} read"]
        self.rejected += sum(found.values())
        return fit

    def enter(self, changes: dict[str, int], what: str) -> None:
        """Enter what became of a table: how many rows were added, changed and removed, or that nothing was."""
        done = {f"{what}: {how}": number for how, number in changes.items() if number}
        self.rows |= done or {f"{what}: changed": 0}


def store_counts(table: Table, run: Run, counts: StepCounts) -> None:
    """Append a step's counts to `funnel`, once."""
    rows = [(run.run_id, counts.step, place, what, number) for place, (what, number) in enumerate(counts.rows.items())]
    stored = table.spark.createDataFrame(rows, TABLES["funnel"].schema)
    table.append(stored.coalesce(1), run.transaction(f"funnel/{counts.step}"))


@dataclass(frozen=True)
class FunnelReport:
    """A complete build. Its `str` is the table that the command prints.

    Attributes:
        counts: by step, in order: what was counted, and how many rows.
        notes: what the user should know besides.
    """

    run: Run
    totals: Totals
    counts: dict[str, dict[str, int]]
    notes: tuple[str, ...]
    tables: dict[str, str]

    @classmethod
    def of(
        cls,
        run: Run,
        totals: Totals,
        funnel: Table,
        steps: tuple[str, ...],
        notes: tuple[str, ...],
        tables: dict[str, str],
    ) -> "FunnelReport":
        """Gather the report from the table `funnel`."""
        rows = sorted(funnel.read().where(F.col(RUN_ID) == run.run_id).collect(), key=lambda row: row["place"])
        counts = {step: {row["what"]: row["rows"] for row in rows if row["step"] == step} for step in steps}
        return cls(run, totals, counts, notes, tables)

    def __str__(self) -> str:
        lines = []
        for step, counts in self.counts.items():
            lines.append(step)
            lines += [f"  {what:<42}{rows:>15,}" for what, rows in counts.items()]
        lines += [f"note: {note}" for note in self.notes]
        lines += [f"{'seconds':<18}{self.totals.seconds:,.1f}", f"{'run':<18}{self.run.run_id}"]
        return "\n".join([*lines, *(f"{name:<18}{where}" for name, where in self.tables.items())])
