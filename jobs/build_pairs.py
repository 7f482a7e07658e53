"""Makes query-passage pairs of a query log, documents and a search engine's results: `mkdm build-pairs`."""

import time
from collections.abc import Sequence

from pyspark.sql import SparkSession

from cluster.session import ClusterConfig, start_session
from jobs.engine import (
    ANY_FAULT,
    COMPLETE,
    REMOVED,
    FileOptions,
    Identity,
    Ledger,
    RunState,
    Table,
    Totals,
    Warehouse,
    drop_staging,
    newest_build,
    one_line,
    record_failure,
    run_job,
    say,
    settings_of,
    small_batches,
    told,
)
from jobs.funnel import (
    DOCUMENTS,
    QUERIES,
    QUERY_DOCUMENTS,
    Build,
    BuildPairsConfig,
    FunnelReport,
    StepCounts,
    build_pairs,
    build_passages,
    build_queries,
    read_input,
    store_counts,
    transform,
)
from mkdm.columns import FREQUENCY, PASSAGE
from mkdm.config import parse_config
from mkdm.errors import ConfigError, InputError, RejectRateError, RunFailedError
from udfs.passages import cut_settings

__all__ = ["BuildPairsConfig", "main", "run", "transform"]

JOB = "build-pairs"
STEPS = ((QUERIES, build_queries), (DOCUMENTS, build_passages), ("pairs", build_pairs))
BUILT = ("normalised_queries", "query_map", "passages", "pairs")
INPUTS = (QUERIES, DOCUMENTS, QUERY_DOCUMENTS)
SETTINGS = (
    "segments",
    "head_share",
    "body_share",
    "html",
    "max_document_characters",
    "max_query_characters",
    "near_duplicates",
    "duplicates",
    "boilerplate_documents",
    "documents_per_query",
    "passages_per_document",
    "passages_per_query",
    "prefilter",
    "passage_in_pairs",
)


@one_line
def run(spark: SparkSession, config: BuildPairsConfig) -> FunnelReport:
    """Bring `normalised_queries`, `query_map`, `passages` and `pairs` up to date with the inputs.

    They then hold what the inputs ask for and nothing else, but only rows that differ are touched: a new document makes
    its pairs, one that left takes its own away, and an unchanged one is not cut again. The same command again goes on
    with the step that failed, or finds nothing to do.

    Raises:
        ConfigError: a setting that cannot work with the tables that are there.
        ModelError: the folder has no tokenizer that can be used.
        InputError: an input is missing or lacks a column or its type; or a table that would be written holds rows that
            no build made.
        RejectRateError: more rows of an input were rejected than allowed; the pairs stay as they were.
        RunFailedError: a task failed for good, or rows went missing.
    """
    warehouse = Warehouse(spark, config.warehouse)
    inputs = {
        name: read_input(
            name,
            warehouse.table(name, getattr(config, name)),
            getattr(config, f"{name}_version"),
            FileOptions(getattr(config, f"{name}_columns"), config.csv_escape),
        )
        for name in INPUTS
    }
    settings = cut_settings(spark, config.tokenizer, config.passage_tokens, config.passage_overlap)
    tables = _tables(warehouse, config)
    chosen = settings_of(config, SETTINGS) | {"cut": str(settings)}
    chosen |= {f"table {name}": tables[name].table_id() for name in BUILT}  # a new one is empty
    versions = {name: found.version for name, found in inputs.items()}
    identity = Identity(JOB, chosen, versions, settings.version)
    ledger = Ledger(tables["runs"])
    state = _started(ledger, identity)
    if state is None:
        for other in ledger.states(job=JOB):
            if other.state != COMPLETE:  # it cannot go on any more; a complete one has dropped its own
                drop_staging(warehouse, other.run)
        with small_batches(spark):
            rows = sum(found.rows.count() for found in inputs.values())
        state = ledger.start(identity, ledger.free_name(identity, None), rows, len(STEPS))
    build = Build(spark, warehouse, config, state.run, inputs, tables, ledger, settings)
    if state.state == COMPLETE:
        say(f"run {state.run.run_id} is complete since {state.last_seen:%Y-%m-%d %H:%M:%S}: nothing to do")
        totals = state.totals
    else:
        totals = _complete(build, ledger, state)
    drop_staging(warehouse, state.run)
    shown = {name: tables[name].location for name in ("pairs", "passages", "rejected_inputs", "funnel")}
    names = tuple(step for step, _ in STEPS)
    return FunnelReport.of(state.run, totals, tables["funnel"], names, _notes(build), shown)


def _tables(warehouse: Warehouse, config: BuildPairsConfig) -> dict[str, Table]:
    moved = {"passages": config.passages, "pairs": config.pairs, "runs": config.runs}
    for name in BUILT:
        table = warehouse.table(name, moved.get(name))
        if table.exists() and not table.built() and not table.read().isEmpty():
            raise InputError(
                f"{table.location} holds rows that no build made, and would lose them: give another --warehouse, or "
                f"move that table away"
            )
    tables = {name: warehouse.output(name, moved.get(name)) for name in (*BUILT, "funnel", "rejected_inputs", "runs")}
    pairs, has = tables["pairs"], PASSAGE in tables["pairs"].read().columns
    if has != config.passage_in_pairs:
        if not pairs.read().isEmpty():
            raise ConfigError(
                f"{pairs.location} was built with --passage-in-pairs {str(has).lower()}: keep it, or remove the table"
            )
        if has:
            raise ConfigError(f"{pairs.location} has the column passage: remove the table, or --passage-in-pairs true")
        pairs.spark.sql(f"ALTER TABLE {pairs.sql_name} ADD COLUMNS (passage STRING)")
    return tables


def _started(ledger: Ledger, identity: Identity) -> RunState | None:
    """The newest build, if it is this one: the tables are what the newest build left or was about to."""
    newest = newest_build(ledger, JOB)
    if newest is None or newest.state == REMOVED or newest.run.fingerprint != identity.fingerprint:
        return None
    return newest


def _complete(build: Build, ledger: Ledger, state: RunState) -> Totals:
    began, run = time.monotonic(), state.run
    if state.chunks:
        say(f"{run.run_id} goes on: {len(state.chunks)} of {len(STEPS)} steps are done")
    done = dict(state.chunks)
    try:
        for number, (name, step) in enumerate(STEPS):
            if number in done:
                continue
            say(f"{name} …")
            since = time.monotonic()
            counts = step(build)
            store_counts(build.tables["funnel"], run, counts)
            done[number] = _totals(counts, time.monotonic() - since)
            ledger.complete_chunk(run, number, done[number])
        parts = list(done.values())
        totals = Totals(
            rows_read=sum(part.rows_read for part in parts),
            rows_written=done[len(STEPS) - 1].rows_written,
            rows_rejected=sum(part.rows_rejected for part in parts),
            seconds=sum(part.seconds for part in state.chunks.values()) + time.monotonic() - began,
        )
        ledger.record(run, COMPLETE, totals)
    except ANY_FAULT as error:
        if (done_elsewhere := record_failure(ledger, run)) is not None:
            return done_elsewhere
        if isinstance(error, (InputError, RejectRateError)):
            raise
        raise RunFailedError(f"run {run.run_id} failed: {told(error)}") from error
    return totals


def _totals(counts: StepCounts, seconds: float) -> Totals:
    written = counts.rows.get("pairs", counts.rows.get("passages", counts.read - counts.rejected))
    return Totals(rows_read=counts.read, rows_written=written, rows_rejected=counts.rejected, seconds=seconds)


def _notes(build: Build) -> tuple[str, ...]:
    notes = []
    queries = build.inputs[QUERIES]
    if FREQUENCY not in queries.rows.columns:
        notes.append(f"{queries.table.location} has no column frequency: all queries are taken, as segment all")
    elif build.tables["normalised_queries"].read().where("segment = 'all'").limit(1).count():
        notes.append(f"no query of {queries.table.location} has a frequency above 0: all are taken, as segment all")
    return tuple(notes)


def main(argv: Sequence[str] | None = None) -> None:
    """Build from the command line and print the funnel."""
    config, cluster = parse_config("mkdm build-pairs", argv, BuildPairsConfig, ClusterConfig)
    print(run(start_session(cluster, f"mkdm build-pairs {config.warehouse}", whole_executor=False), config))


if __name__ == "__main__":
    run_job(main)
