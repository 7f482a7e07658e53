"""Gathers a scoring run from the tables and writes it as one HTML page: `mkdm runs --report FILE.html`."""

from dataclasses import dataclass
from pathlib import Path

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.engine import COMPLETE, SCORE_JOB, Ledger, RunState, Table, Warehouse, chain_of, work_done
from mkdm.columns import CHUNK, ERROR_CODE, RUN_ID, SCORE
from mkdm.errors import ConfigError, InputError
from udfs.pages import SCORE_BINS, ChunkWork, ExecutorWork, RunFigures, run_page


@dataclass(frozen=True)
class Places:
    """The tables that a report reads, each of which may have been moved."""

    warehouse: Warehouse
    ledger: Ledger
    scores: Table
    rejected_pairs: Table


def write_report(places: Places, run_id: str | None, file: str) -> str:
    """Write the page of a run, by default of the scoring run that was started last.

    Returns:
        What the command prints.

    Raises:
        InputError: there is no such scoring run.
        ConfigError: the file cannot be written.
    """
    state = _chosen(places.ledger, run_id)
    figures = gather(places, state)
    page = run_page(figures, f"Scoring run {state.run.run_id}")
    try:
        Path(file).write_text(page, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write --report {file}: {error.strerror or error}") from error
    lines = [("page", file), *figures.about[:3], ("beside", figures.before_name)]
    if figures.before:
        lines += [("PSI", f"{figures.psi:.4f}"), ("KS", f"{figures.ks:.4f}")]
    return "\n".join(f"{name:<18}{value}" for name, value in lines)


def gather(places: Places, state: RunState) -> RunFigures:
    """All figures of a run. Spark counts; what comes to the driver is a row per chunk, executor, length or bin."""
    run, totals = state.run, state.totals
    chain = chain_of(places.ledger, run.run_id)
    before, name = _previous(places.ledger, state, chain)
    return RunFigures(
        about=[
            ("run", run.run_id),
            ("state", f"{state.state}, {len(state.chunks):,} of {run.chunks:,} chunks"),
            ("pairs", f"{totals.rows_read:,} of {run.rows:,}"),
            ("scored", f"{totals.rows_written:,}"),
            ("rejected", f"{totals.rows_rejected:,}"),
            *work_done(totals),
            ("model version", run.model_version),
            *((f"input {name}", version) for name, version in run.input_versions.items()),
            *run.settings.items(),
            ("started", f"{run.started_at:%Y-%m-%d %H:%M:%S}"),
            ("last seen", f"{state.last_seen:%Y-%m-%d %H:%M:%S}"),
        ],
        chunks=_chunks(places.ledger, run.run_id),
        rejects=_rejects(places.rejected_pairs, run.run_id),
        token_histogram=_token_histogram(_details(places.ledger, run.run_id)),
        executors=_executors(_details(places.ledger, run.run_id)),
        scores=_score_bins(places.scores, chain),
        before=_score_bins(places.scores, chain_of(places.ledger, before.run.run_id)) if before else [],
        before_name=name,
    )


def _chosen(ledger: Ledger, run_id: str | None) -> RunState:
    states = [state for state in ledger.states(job=SCORE_JOB) if run_id in (None, state.run.run_id)]
    if not states:
        raise InputError(f"{ledger.table.location} has no scoring run{f' {run_id}' if run_id else ''}: see mkdm runs")
    return max(states, key=lambda state: state.run.started_at)


def _previous(ledger: Ledger, state: RunState, chain: list[str]) -> tuple[RunState | None, str]:
    """The run that was complete before this one began, over the same table or files, and what to call it.

    Not one of the runs that this one adds to, whose scores are in it, nor one whose rows another has begun to replace.
    """
    mine = _input(state)
    found: list[RunState] = []
    for other in ledger.states(job=SCORE_JOB):
        earlier = other.state == COMPLETE and other.last_seen <= state.run.started_at
        if earlier and _input(other) == mine and other.run.run_id not in chain:
            found.append(other)
    found = [other for other in found if not ledger.replaced_by(other.run.run_id)]
    if not found:
        return None, "No earlier complete run of these pairs has its scores whole: there is nothing to compare with."
    before = max(found, key=lambda other: other.last_seen)
    model = "the same model" if before.run.model_version == state.run.model_version else "another model"
    return before, f"{before.run.run_id}, {model}, {before.totals.rows_written:,} scores of its own"


def _input(state: RunState) -> str:
    """The table that a run read, whatever its version; files by their version."""
    return state.run.input_versions.get("pairs", "").partition("@")[0]


def _details(ledger: Ledger, run_id: str) -> DataFrame | None:
    """The rows of a run's chunks; None in a ledger from before 0.7, which kept no details."""
    rows = ledger.table.read()
    if "loads" not in rows.columns:
        return None
    return rows.where((F.col(RUN_ID) == run_id) & F.col(CHUNK).isNotNull())


def _chunks(ledger: Ledger, run_id: str) -> list[ChunkWork]:
    return [
        ChunkWork(row["finished_at"], row["seconds"], row["rows_read"], row["padding_ratio"] or 0.0)
        for row in ledger.rows(run_id=run_id)
        if row["chunk"] is not None
    ]


def _token_histogram(chunks: DataFrame | None) -> dict[int, int]:
    if chunks is None:
        return {}
    counted = chunks.select(F.explode("token_histogram").alias("length", "pairs")).groupBy("length")
    return {row["length"]: row["pairs"] for row in counted.agg(F.sum("pairs").alias("pairs")).collect()}


def _executors(chunks: DataFrame | None) -> list[ExecutorWork]:
    """By executor: a load's id ends in @ and the executor that it was in."""
    if chunks is None:
        return []
    each = chunks.select(F.explode("loads").alias("load", "work"))
    counted = each.groupBy(F.substring_index("load", "@", -1).alias("name")).agg(
        F.sum("work.rows").alias("rows"),
        F.sum("work.tokens").alias("tokens"),
        F.sum("work.seconds").alias("seconds"),
        F.count_distinct("load").alias("loads"),
    )
    found = [ExecutorWork(**row.asDict()) for row in counted.collect()]
    return sorted(found, key=lambda one: (-one.seconds, one.name))


def _rejects(table: Table, run_id: str) -> dict[str, int]:
    if not table.exists():
        return {}
    mine = table.read().where(F.col(RUN_ID) == run_id).groupBy(ERROR_CODE).count()
    return {row[ERROR_CODE] or "no reason": row["count"] for row in mine.collect()}


def _score_bins(table: Table, chain: list[str]) -> list[int]:
    """Scores of runs by bin; one of 1.0 is in the last bin."""
    counts = [0] * SCORE_BINS
    if table.exists():
        place = F.least(F.floor(F.col(SCORE) * SCORE_BINS), F.lit(SCORE_BINS - 1)).cast("int")
        mine = table.read().where(F.col(RUN_ID).isin(chain))
        for row in mine.groupBy(place.alias("place")).count().collect():
            counts[row["place"]] = row["count"]
    return counts
