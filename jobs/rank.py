"""Ranks the passages of each query by score and publishes the ranking in one commit: `mkdm rank`."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.internal import InternalFunction

from cluster.session import ClusterConfig, start_session
from jobs.engine import (
    COMPLETE,
    SCORE_JOB,
    Ledger,
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
from mkdm.columns import MODEL_VERSION, PASSAGE_ID, QUERY_ID, RANK, RUN_ID, SCORE
from mkdm.config import parse_config, require_at_least
from mkdm.errors import InputError, RunFailedError

RANKED = (QUERY_ID, RANK, PASSAGE_ID, SCORE, MODEL_VERSION, RUN_ID)
_SCORES = "scores"
_METADATA = "spark.databricks.delta.commitInfo.userMetadata"


@dataclass(frozen=True)
class RankConfig:
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
    runs: str | None = None
    """Table of runs, if not <warehouse>/runs."""

    def __post_init__(self) -> None:
        require_at_least(self, 1, "top_k")


@dataclass(frozen=True)
class RankReport:
    """What is published. Its `str` is the table that the command prints.

    Attributes:
        version: Delta version of `ranked_passages` that holds it.
        before: the version that readers saw until then, and can go on reading; None if it was empty.
    """

    run_id: str
    model_version: str
    rows: int
    queries: int
    version: int
    before: int | None
    location: str

    def __str__(self) -> str:
        rows = [
            ("queries", f"{self.queries:,}"),
            ("passages", f"{self.rows:,}"),
            ("model version", self.model_version),
            ("run", self.run_id),
            ("ranked_passages", self.location),
            ("version", f"{self.version}"),
            ("version before", "none" if self.before is None else f"{self.before}"),
        ]
        return "\n".join(f"{name:<18}{value}" for name, value in rows)


@one_line
def run(spark: SparkSession, config: RankConfig) -> RankReport:
    """Write the ranking of a complete run; readers see the old one whole until they see the new one whole.

    Raises:
        InputError: there is no such run, it is not complete, or a later run has replaced a part of its scores.
        RunFailedError: the ranking has not as many rows as the scores ask for.
    """
    warehouse = Warehouse(spark, config.warehouse)
    ledger = Ledger(warehouse.table("runs", config.runs))
    state = _complete_run(ledger, config.run_id)
    chain = chain_of(ledger, state.run.run_id)
    scores = warehouse.table("scores", config.scores)
    pinned = scores.latest_version()
    mine = scores.read(pinned).where(F.col(RUN_ID).isin(chain))
    ranked = warehouse.output("ranked_passages", config.ranked_passages)
    published, before = _published(ranked)
    if published == {"run_id": state.run.run_id, "top_k": config.top_k}:
        say(f"run {state.run.run_id} is published already, as version {before}: nothing to do")
        queries, expected = _expected(mine.groupBy(QUERY_ID).agg(F.count("*").alias(_SCORES)), config.top_k)
    else:
        best = stored(_best(mine, config.top_k))  # a merge reads it twice
        try:
            told = json.dumps({"run_id": state.run.run_id, "top_k": config.top_k})
            merging = published.get("run_id") in chain and published.get("top_k") == config.top_k
            with with_settings(spark, {_METADATA: told} if merging else {}) as can_tell:
                if merging and can_tell:
                    ranked.merge_to(best.select(*RANKED), (QUERY_ID, RANK))
                else:  # of a session without that setting too: MERGE has no other way to tell what it made
                    ranked.overwrite(best.select(*RANKED), user_metadata=told)
            queries, expected = _expected(best.where(F.col(RANK) == 1), config.top_k)
        finally:
            released(best)
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
    )


def transform(scores: DataFrame, top_k: int) -> DataFrame:
    """The best passages of each query, from rank 1; equal scores in the order of passage_id.

    Args:
        scores: query_id, passage_id, score, model_version, run_id; each pair once.

    Returns:
        query_id, rank, passage_id, score, model_version, run_id.
    """
    return _best(scores, top_k).select(*RANKED)


def _best(scores: DataFrame, top_k: int) -> DataFrame:
    """The ranking, and how many scores each query has.

    A heap of each query's best keeps at most top_k rows of it in a task, before the one shuffle. The heap is the one of
    Spark's own plots; a struct is ordered by its fields, and `True` keeps the least of them.
    """
    row = F.struct((-F.col(SCORE)).alias("minus"), *RANKED[2:])
    heaps = scores.groupBy(QUERY_ID).agg(
        InternalFunction.collect_top_k(row, top_k, True).alias("best"), F.count("*").alias(_SCORES)
    )
    places = heaps.select(QUERY_ID, _SCORES, F.posexplode("best").alias("place", "row"))
    return places.select(QUERY_ID, (F.col("place") + 1).alias(RANK), *(f"row.{name}" for name in RANKED[2:]), _SCORES)


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
    print(run(start_session(cluster, f"mkdm rank {config.warehouse}", whole_executor=False), config))


if __name__ == "__main__":
    run_job(main)
