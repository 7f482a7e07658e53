"""From the staged results of a chunk to the outputs: every staged row goes to exactly one of them, once."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from jobs.engine.ledger import Details, Ledger, Run, Totals
from jobs.engine.limits import with_settings
from jobs.engine.table import Table
from mkdm.columns import (
    ERROR_CODE,
    ERROR_MESSAGE,
    LOAD_ID,
    PADDED_TOKENS,
    PAIR_KEY,
    PASSAGE_ID,
    QUERY_ID,
    SECONDS,
    TOKENS,
)
from mkdm.errors import RunFailedError

SCORES_PER_FILE = 2_000_000
"""Rows of one file of `scores`, about 60 MB. They lie by passage, so that a document that changes touches few files."""
_AT_ONCE = {"spark.sql.adaptive.enabled": "false", "spark.sql.shuffle.partitions": "1"}
"""What a commit asks of a log or of sums is small: a Spark job a query, not one for each stage of it."""
TOKENS_STEP = 16
"""Width of a bar of the histogram of lengths: a model's 512 tokens are 32 bars."""


@dataclass(frozen=True)
class Output:
    """A table that takes a part of the staged rows.

    Attributes:
        rows: the columns of the table, made of the staged rows that belong to it.
    """

    table: Table
    rows: Callable[[DataFrame, Run], DataFrame]


def commit_chunk(
    staged: DataFrame,
    scores: Output,
    rejects: Output,
    ledger: Ledger,
    run: Run,
    chunk: int,
    expected: int,
    began: float,
    per_pair: int = 1,
) -> Totals:
    """Append a chunk's staged rows to its two outputs, check what readers now find there, and record the chunk.

    The staged rows are fixed by then, so that after a crash between two commits the next attempt, or another driver,
    adds the same rows or none.

    Args:
        staged: what `score_pairs`, or another job's transform, returned for the chunk.
        expected: pairs that went into it.
        per_pair: staged rows of each pair.
        began: `time.monotonic()` at the start of the chunk.

    Raises:
        RunFailedError: rows are missing, staged or committed.
    """
    with with_settings(staged.sparkSession, _AT_ONCE):
        sums, details = measure(staged)
        if sums["all"] != expected * per_pair:
            raise RunFailedError(
                f"{expected:,} pairs went into chunk {chunk}, and {sums['all']:,} rows came out, "
                f"not {per_pair} for each"
            )
        written = sums["all"] - sums["rejected"]
        for output, count in ((scores, written), (rejects, sums["rejected"])):
            if count:
                transaction = run.transaction(chunk)
                files = math.ceil(count / SCORES_PER_FILE)
                rows = output.rows(staged, run)
                rows = rows.coalesce(1) if files == 1 else rows.repartitionByRange(files, PASSAGE_ID)
                version = output.table.append(rows.sortWithinPartitions(PASSAGE_ID, QUERY_ID), transaction)
                output.table.verify(transaction, count, version)
        totals = Totals(
            rows_read=expected,
            rows_written=written,
            rows_rejected=sums["rejected"],
            tokens=sums["tokens"],
            padding_ratio=1 - sums["tokens"] / sums["padded"] if sums["padded"] else 0.0,
            model_loads=sums["loads"],
            seconds=time.monotonic() - began,
        )
        ledger.complete_chunk(run, chunk, totals, details)
        return totals


def measure(staged: DataFrame) -> tuple[dict[str, int], Details]:
    """Sums over a chunk's staged rows, and the same by length and by loaded model, in one pass.

    Taken from the staged rows and not from accumulators that tasks add to: those count a row twice when its task is
    tried again. What is collected is a row per length and loaded model.

    Returns:
        all, rejected, tokens and padded of the chunk, and loads, the models that worked on it; and its details.
    """
    computed = F.col(PADDED_TOKENS) > 0
    length = F.when(computed, (F.ceil(F.col(TOKENS) / TOKENS_STEP) * TOKENS_STEP).cast("int"))
    seconds = F.col(SECONDS).cast("double") if SECONDS in staged.columns else F.lit(0.0)  # staged before 0.7
    groups = (
        staged.groupBy(length.alias("length"), LOAD_ID)
        .agg(
            F.count("*").alias("all"),
            F.count(ERROR_CODE).alias("rejected"),
            _sum(F.when(computed, F.col(TOKENS))).alias("tokens"),
            _sum(F.col(PADDED_TOKENS)).alias("padded"),
            _sum(seconds).alias("seconds"),
        )
        .collect()
    )
    details = Details()
    for group in groups:
        if group["length"] is not None:
            before = details.token_histogram.get(group["length"], 0)
            details.token_histogram[group["length"]] = before + group["all"]
        if group[LOAD_ID] is not None:
            load = details.loads.setdefault(group[LOAD_ID], {"rows": 0, "tokens": 0, "seconds": 0.0})
            for name, value in (("rows", "all"), ("tokens", "tokens"), ("seconds", "seconds")):
                load[name] += group[value]
    sums = {name: sum(group[name] for group in groups) for name in ("all", "rejected", "tokens", "padded")}
    return sums | {"loads": len(details.loads)}, details


def _sum(column: Column) -> Column:
    return F.coalesce(F.sum(column), F.lit(0))


def rejected_rows(staged: DataFrame, run: Run) -> DataFrame:
    """The staged rows without one, as `rejected_pairs` has them."""
    return staged.where(F.col(ERROR_CODE).isNotNull()).select(
        *PAIR_KEY,
        F.lit(run.job).alias("job"),
        ERROR_CODE,
        ERROR_MESSAGE,
        F.lit(run.run_id).alias("run_id"),
        F.lit(datetime.now(UTC)).alias("rejected_at"),
    )
