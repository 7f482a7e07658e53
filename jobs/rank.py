"""Ranks the passages of each query by score and publishes the ranking in one commit: `mkdm rank`."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.internal import InternalFunction

from cluster.session import ClusterConfig, StepSessions
from jobs.engine import (
    COMPLETE,
    SCORE_JOB,
    Ledger,
    RunReport,
    RunState,
    Table,
    Warehouse,
    chain_of,
    one_line,
    released,
    run_job,
    say,
    stored,
    with_settings,
)
from jobs.rescoring import Calibration, Lists, RescoreFlags, Rescoring, rescore_heads
from mkdm.columns import CONTENT_HASH, MODEL_VERSION, PASSAGE_ID, QUERY_ID, RANK, RUN_ID, SCORE
from mkdm.config import parse_config, require_at_least
from mkdm.errors import InputError, RunFailedError

RANKED = (QUERY_ID, RANK, PASSAGE_ID, SCORE, MODEL_VERSION, RUN_ID)
RESCORED, CALIBRATION = "rescored", "calibration"
"""In the metadata of a commit: the teacher's run that it was made with, and the map from the student's scores."""
_SCORES = "scores"
_METADATA = "spark.databricks.delta.commitInfo.userMetadata"


@dataclass(frozen=True)
class RankConfig(RescoreFlags):
    """Publish the best passages of each query, of one complete scoring run, in one commit.

    Raises:
        ConfigError: a number outside its range.
    """

    warehouse: str = "warehouse"
    """Where the tables are: a folder or URI, or CATALOG.SCHEMA."""
    run_id: str | None = None
    """Scoring run to publish; default: the one that was complete last. An earlier one takes the ranking back to it."""
    top_k: int = 10
    """Passages of a query at most."""
    scores: str | None = None
    """Table of scores, if not <warehouse>/scores."""
    ranked_passages: str | None = None
    """Table to publish in, if not <warehouse>/ranked_passages."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(self, 1, "top_k")


@dataclass(frozen=True)
class RankReport:
    """What is published. Its `str` is the table that the command prints.

    Attributes:
        version: Delta version of `ranked_passages` that holds it.
        before: the version that readers saw until then, and can go on reading; None if it was empty.
        rescoring: the run of the teacher over what was new in the heads of the lists; None without one.
        heads: pairs that the teacher was to read, those that it had read before included; None if that is not known.
    """

    run_id: str
    model_version: str
    rows: int
    queries: int
    version: int
    before: int | None
    location: str
    rescoring: RunReport | None = None
    heads: int | None = None

    def __str__(self) -> str:
        rows = [
            ("queries", f"{self.queries:,}"),
            ("passages", f"{self.rows:,}"),
            ("model version", self.model_version),
            ("run", self.run_id),
            ("ranked_passages", self.location),
            ("version", f"{self.version}"),
            ("version before", "none" if self.before is None else f"{self.before}"),
            *self._rescored(),
        ]
        return "\n".join(f"{name:<18}{value}" for name, value in rows)

    def _rescored(self) -> list[tuple[str, str]]:
        if self.rescoring is None:
            return []
        totals = self.rescoring.totals
        known = [] if self.heads is None else [("read before", f"{self.heads - totals.rows_read:,}")]
        return [
            ("teacher version", self.rescoring.run.model_version),
            ("rescoring run", self.rescoring.run.run_id),
            ("read by teacher", f"{totals.rows_written:,}"),
            *known,
            ("rejected", f"{totals.rows_rejected:,}"),
            *((f"  {code}", f"{count:,}") for code, count in self.rescoring.rejects.items()),
        ]


@one_line
def run(spark: SparkSession, config: RankConfig) -> RankReport:
    """Write the ranking of a complete run; readers see the old one whole until they see the new one whole.

    With `rescore`, a teacher reads the heads of the lists first; see `jobs.rescoring`.

    Raises:
        InputError: there is no such run, it is not complete, or a later run has replaced a part of its scores.
        RejectRateError: the teacher rejected more of the heads than allowed; nothing is published.
        RunFailedError: the ranking has not as many rows as the scores ask for.
        MkdmError: what `run_rescoring` raises.
    """
    warehouse = Warehouse(spark, config.warehouse)
    ledger = Ledger(warehouse.table("runs", config.runs))
    state = _complete_run(ledger, config.run_id)
    chain = chain_of(ledger, state.run.run_id)
    mine = _scores(warehouse, config, chain)
    rescoring = _rescoring(warehouse, ledger, config, state, mine) if config.rescore else None
    ranked = warehouse.output("ranked_passages", config.ranked_passages)
    published, before = _published(ranked)
    kept, heads = published.pop(CALIBRATION, None), None
    wanted: dict[str, Any] = {"run_id": state.run.run_id, "top_k": config.top_k}
    wanted |= {} if rescoring is None else {RESCORED: rescoring.report.run.run_id}
    update = published.get("run_id") in chain and published.get("top_k") == config.top_k
    update = update and published.get(RESCORED) in ([None] if rescoring is None else rescoring.chain)
    if published == wanted:
        say(f"run {state.run.run_id} is published already, as version {before}: nothing to do")
        queries, expected = _expected(mine.groupBy(QUERY_ID).agg(F.count("*").alias(_SCORES)), config.top_k)
    elif rescoring is None:
        best = stored(_best(mine, config.top_k))  # a merge reads it twice
        try:
            _publish(ranked, best, wanted, update)
            queries, expected = _expected(best.where(F.col(RANK) == 1), config.top_k)
        finally:
            released(best)
    else:
        lists = Lists.of(_best(mine, max(config.top_k, rescoring.top), CONTENT_HASH), rescoring)
        try:
            lists.refuse_rejects(config.max_reject_rate)
            calibration = Calibration(*kept) if update and kept else lists.calibration(config.top_k)
            wanted |= {} if calibration is None else {CALIBRATION: [calibration.student, calibration.teacher]}
            _publish(ranked, lists.published(calibration, config.top_k), wanted, update)
            queries, expected = _expected(lists.rows.where(F.col(RANK) == 1), config.top_k)
            heads = lists.heads
        finally:
            lists.release()
    version = _published(ranked)[1]
    assert version is not None
    rows = ranked.read(version).count()
    if rows != expected:
        raise RunFailedError(f"version {version} of {ranked.location} has {rows:,} rows, not {expected:,}")
    return RankReport(
        run_id=state.run.run_id,
        model_version=state.run.model_version,
        rows=rows,
        queries=queries,
        version=version,
        before=None if before == version else before,
        location=ranked.location,
        rescoring=None if rescoring is None else rescoring.report,
        heads=heads,
    )


@one_line
def run_rescoring(spark: SparkSession, config: RankConfig) -> RunReport:
    """The first part of `run` where a teacher is named: it reads what is new in the heads; nothing is published.

    Raises:
        ConfigError, ModelError: no such teacher, or a setting that it cannot meet.
        InputError: as for `run`, or pairs of the heads are there no more with the texts that were scored.
        RunFailedError: a task failed for good, or rows went missing; what is committed stays.
    """
    warehouse = Warehouse(spark, config.warehouse)
    ledger = Ledger(warehouse.table("runs", config.runs))
    state = _complete_run(ledger, config.run_id)
    mine = _scores(warehouse, config, chain_of(ledger, state.run.run_id))
    return _rescoring(warehouse, ledger, config, state, mine).report


def _scores(warehouse: Warehouse, config: RankConfig, chain: list[str]) -> DataFrame:
    scores = warehouse.table("scores", config.scores)
    return scores.read(scores.latest_version()).where(F.col(RUN_ID).isin(chain))


def _rescoring(warehouse: Warehouse, ledger: Ledger, config: RankConfig, state: RunState, mine: DataFrame) -> Rescoring:
    return rescore_heads(warehouse, ledger, config, state, lambda top: _best(mine, top, CONTENT_HASH))


def _publish(ranked: Table, best: DataFrame, wanted: dict[str, Any], update: bool) -> None:
    """The one commit; `update` where most rows stay as they are."""
    told = json.dumps(wanted)
    with with_settings(ranked.spark, {_METADATA: told} if update else {}) as can_tell:
        if update and can_tell:
            ranked.merge_to(best.select(*RANKED), (QUERY_ID, RANK))
        else:  # of a session without that setting too: MERGE has no other way to tell what it made
            ranked.overwrite(best.select(*RANKED), user_metadata=told)


def transform(scores: DataFrame, top_k: int) -> DataFrame:
    """The best passages of each query, from rank 1; equal scores in the order of passage_id.

    Args:
        scores: query_id, passage_id, score, model_version, run_id; each pair once.

    Returns:
        query_id, rank, passage_id, score, model_version, run_id.
    """
    return _best(scores, top_k).select(*RANKED)


def _best(scores: DataFrame, top_k: int, *more: str) -> DataFrame:
    """The ranking, with more columns of the scores, and how many scores each query has.

    A heap of each query's best keeps at most top_k rows of it in a task, before the one shuffle. The heap is the one of
    Spark's own plots; a struct is ordered by its fields, and `True` keeps the least of them.
    """
    row = F.struct((-F.col(SCORE)).alias("minus"), *RANKED[2:], *more)
    heaps = scores.groupBy(QUERY_ID).agg(
        InternalFunction.collect_top_k(row, top_k, True).alias("best"), F.count("*").alias(_SCORES)
    )
    places = heaps.select(QUERY_ID, _SCORES, F.posexplode("best").alias("place", "row"))
    columns = (f"row.{name}" for name in (*RANKED[2:], *more))
    return places.select(QUERY_ID, (F.col("place") + 1).alias(RANK), *columns, _SCORES)


def _expected(queries: DataFrame, top_k: int) -> tuple[int, int]:
    """How many queries there are, and how many rows a ranking of them has, by the number of scores of each."""
    kept = F.coalesce(F.sum(F.least(_SCORES, F.lit(top_k))), F.lit(0))
    found = queries.agg(F.count("*").alias("queries"), kept.alias("rows")).collect()[0]
    return found["queries"], found["rows"]


def _complete_run(ledger: Ledger, run_id: str | None) -> RunState:
    where = ledger.table.location
    complete = [state for state in ledger.states(job=SCORE_JOB) if state.state == COMPLETE]
    chosen = [state for state in complete if run_id in (None, state.run.run_id)]
    if not chosen:
        known = RunState.of(ledger.rows(run_id=run_id)) if run_id else None
        if known is not None:
            raise InputError(
                f"run {run_id} is {known.state}, with {len(known.chunks)} of {known.run.chunks} chunks: finish it first"
            )
        raise InputError(f"{where} has no complete scoring run{f' {run_id}' if run_id else ''}: see mkdm runs")
    state = max(chosen, key=lambda one: one.last_seen)
    if ledger.replaced_by(state.run.run_id):
        raise InputError(
            f"an incremental run has replaced scores of run {state.run.run_id}: publish that one; the ranking of this "
            f"one stays readable at its version"
        )
    return state


def _published(ranked: Table) -> tuple[dict[str, Any], int | None]:
    """What the newest ranking was made of, as its own commit says, and its version."""
    for limit in (10, None):
        for row in ranked.history(limit).select("version", "userMetadata").collect():
            if row["userMetadata"]:
                return json.loads(row["userMetadata"]), int(row["version"])
    return {}, None


def main(argv: Sequence[str] | None = None) -> None:
    """Publish from the command line and print what was done."""
    config, cluster = parse_config("mkdm rank", argv, RankConfig, ClusterConfig)
    sessions = StepSessions(cluster, f"mkdm rank {config.warehouse}")
    if config.rescore:
        run_rescoring(sessions.start("rescore", True), config)
    print(run(sessions.start("rank", False), config))


if __name__ == "__main__":
    run_job(main)
