"""Lists the runs of a warehouse, their state, progress and rates, and makes a page of one: `mkdm runs`."""

from collections.abc import Sequence
from dataclasses import dataclass

from pyspark.sql import SparkSession
from pyspark.sql.functions import col

from cluster.session import ClusterConfig, start_session
from jobs.engine import BASE_RUN, REMOVED, Ledger, RunState, Warehouse, drop_staging, literal, one_line, run_job
from jobs.reports import Places, write_report
from mkdm.columns import RUN_ID
from mkdm.config import parse_config
from mkdm.errors import ConfigError, InputError


@dataclass(frozen=True)
class RunsConfig:
    """List the runs of a warehouse, one run whole, make a page of one, or remove one.

    Raises:
        ConfigError: two things at once.
    """

    warehouse: str = "warehouse"
    """Where the tables are: a folder or URI, or CATALOG.SCHEMA."""
    runs: str | None = None
    """Table of runs, if not <warehouse>/runs."""
    run_id: str | None = None
    """Show this run alone, with its settings, inputs and chunks."""
    report: str | None = None
    """Write a scoring run as one HTML page into this file: the run of --run-id, or the one that was started last."""
    scores: str | None = None
    """Table of scores that the page shows, if not <warehouse>/scores."""
    rejected_pairs: str | None = None
    """Table of rejects that the page shows, if not <warehouse>/rejected_pairs."""
    remove: str | None = None
    """Remove this run: an unfinished one is given up; the rows of either leave the tables."""

    def __post_init__(self) -> None:
        if self.remove and self.report:
            raise ConfigError("--remove and --report are two commands: write the page first")


@one_line
def run(spark: SparkSession, config: RunsConfig) -> str:
    """The table of runs, or of one run, or what a page was made of.

    Raises:
        ConfigError: the page cannot be written.
        InputError: there is no ledger or no such run, or another run adds to the one to remove.
    """
    warehouse = Warehouse(spark, config.warehouse)
    ledger = Ledger(warehouse.table("runs", config.runs))
    if not ledger.table.exists():
        raise InputError(f"no runs at {ledger.table.location}: nothing has run in this warehouse yet")
    if config.remove:
        return _remove(warehouse, ledger, _one(ledger, config.remove))
    if config.report:
        scores = warehouse.table("scores", config.scores)
        rejected = warehouse.table("rejected_pairs", config.rejected_pairs)
        return write_report(Places(warehouse, ledger, scores, rejected), config.run_id, config.report)
    if config.run_id:
        return details(_one(ledger, config.run_id))
    return listing(ledger.states())


def _remove(warehouse: Warehouse, ledger: Ledger, state: RunState) -> str:
    name = state.run.run_id
    heirs = [other for other in ledger.states() if other.run.input_versions.get(BASE_RUN) == name]
    used = [other.run.run_id for other in heirs if other.state != REMOVED]
    if used:
        raise InputError(f"run {used[0]} adds to run {name}: its scores are theirs together; remove that one first")
    gone = 0
    for table in ("scores", "soft_labels", "rescored", "rejected_pairs", "rejected_inputs", "funnel"):
        mine = warehouse.table(table)
        if mine.exists():
            gone += mine.read().where(col(RUN_ID) == name).count()
            mine.delete(f"{RUN_ID} = {literal(name)}")
    ledger.record(state.run, REMOVED)
    drop_staging(warehouse, state.run)
    return f"run {name}, which was {state.state}, is removed, and {gone:,} rows with it"


def _one(ledger: Ledger, run_id: str) -> RunState:
    state = RunState.of(ledger.rows(run_id=run_id))
    if state is None:
        raise InputError(f"{ledger.table.location} has no run {run_id}: see mkdm runs")
    return state


def listing(states: list[RunState]) -> str:
    """The runs, newest last: how far, how fast, and when a row of theirs was last written."""
    head = f"{'run':<31}{'state':<11}{'chunks':>13}{'pairs':>17}{'done':>7}{'rejected':>10}{'pairs/s':>9}"
    return "\n".join([f"{head}  {'last seen':<20}model", *map(_line, states)])


def _line(state: RunState) -> str:
    run, totals = state.run, state.totals
    chunks = f"{len(state.chunks):,} of {run.chunks:,}"
    share = totals.rows_read / run.rows if run.rows else 1.0
    rate = totals.rows_read / totals.seconds if totals.seconds else 0.0
    return (
        f"{run.run_id:<31}{state.state:<11}{chunks:>13}{run.rows:>17,}{share:>7.0%}{totals.rows_rejected:>10,}"
        f"{rate:>9,.0f}  {state.last_seen:%Y-%m-%d %H:%M:%S} {run.model_version}"
    )


def details(state: RunState) -> str:
    """One run: all that decides its output, and what each chunk did."""
    run = state.run
    rows = [
        ("run", run.run_id),
        ("job", run.job),
        ("state", state.state),
        ("fingerprint", run.fingerprint),
        ("model version", run.model_version),
        *((f"input {name}", version) for name, version in run.input_versions.items()),
        *run.settings.items(),
        ("started", f"{run.started_at:%Y-%m-%d %H:%M:%S}"),
        ("last seen", f"{state.last_seen:%Y-%m-%d %H:%M:%S}"),
    ]
    lines = [f"{name:<20}{value}" for name, value in rows]
    lines.append(f"\n{'chunk':>7}{'pairs':>12}{'scored':>12}{'rejected':>10}{'padding':>9}{'loads':>7}{'seconds':>9}")
    for chunk, totals in sorted(state.chunks.items()):
        lines.append(
            f"{chunk:>7,}{totals.rows_read:>12,}{totals.rows_written:>12,}{totals.rows_rejected:>10,}"
            f"{totals.padding_ratio:>9.1%}{totals.model_loads:>7,}{totals.seconds:>9.1f}"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """List from the command line."""
    config, cluster = parse_config("mkdm runs", argv, RunsConfig, ClusterConfig)
    print(run(start_session(cluster, f"mkdm runs {config.warehouse}"), config))


if __name__ == "__main__":
    run_job(main)
