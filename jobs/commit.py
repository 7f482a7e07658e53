"""From a staging table to the outputs: every staged row goes to exactly one of the results and `rejected_pairs`."""

import time
from datetime import UTC, datetime

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.ledger import COMPLETE, Run, Totals, record
from jobs.warehouse import Table
from mkdm.columns import CONTENT_HASH, ERROR_CODE, ERROR_MESSAGE, LOAD_ID, PADDED_TOKENS, PAIR_KEY, SCORE, TOKENS
from mkdm.errors import RunFailedError


def commit_staged(staged: Table, outputs: dict[str, Table], run: Run, expected: int, started: float) -> Totals:
    """Append a run's staged rows to `scores` and `rejected_pairs`, then record it complete.

    Each append carries the run's fingerprint as its transaction, so that after a crash between two of them the next
    attempt adds only what is missing.

    Args:
        staged: what `jobs.score.transform` returned.
        outputs: the tables scores, rejected_pairs and runs.
        expected: rows that went in.
        started: `time.monotonic()` at the start of the run.

    Raises:
        RunFailedError: the staged rows are not as many as went in; nothing was committed.
    """
    rows = staged.read()
    sums = rows.agg(
        F.count("*").alias("all"),
        F.count(ERROR_CODE).alias("rejected"),
        F.coalesce(F.sum(TOKENS), F.lit(0)).alias("tokens"),
        F.coalesce(F.sum(PADDED_TOKENS), F.lit(0)).alias("padded"),
        F.count_distinct(LOAD_ID).alias("loads"),
    ).collect()[0]
    if sums["all"] != expected:
        raise RunFailedError(f"{expected} rows went in and {sums['all']} came out; {staged.location} holds them")
    outputs["scores"].append(_scores(rows, run), run.fingerprint)
    if sums["rejected"]:
        outputs["rejected_pairs"].append(_rejects(rows, run), run.fingerprint)
    totals = Totals(
        rows_read=sums["all"],
        rows_written=sums["all"] - sums["rejected"],
        rows_rejected=sums["rejected"],
        tokens=sums["tokens"],
        padding_ratio=1 - sums["tokens"] / sums["padded"] if sums["padded"] else 0.0,
        model_loads=sums["loads"],
        seconds=time.monotonic() - started,
    )
    record(outputs["runs"], run, COMPLETE, totals)
    staged.drop()
    return totals


def _scores(staged: DataFrame, run: Run) -> DataFrame:
    return staged.where(F.col(ERROR_CODE).isNull()).select(
        *PAIR_KEY,
        SCORE,
        F.lit(run.model_version).alias("model_version"),
        CONTENT_HASH,
        F.lit(run.run_id).alias("run_id"),
        F.lit(datetime.now(UTC)).alias("scored_at"),
    )


def _rejects(staged: DataFrame, run: Run) -> DataFrame:
    return staged.where(F.col(ERROR_CODE).isNotNull()).select(
        *PAIR_KEY,
        F.lit(run.job).alias("job"),
        ERROR_CODE,
        ERROR_MESSAGE,
        F.lit(run.run_id).alias("run_id"),
        F.lit(datetime.now(UTC)).alias("rejected_at"),
    )
