"""What scoring pairs is: every pair with its score, or with the reason why it has none."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from jobs.engine.blocks import Outcome, block_texts, blocks_of, dealt, rows_of
from jobs.engine.grouping import Hashed
from jobs.engine.ledger import Run
from mkdm.columns import (
    CONTENT_HASH,
    ERROR_CODE,
    ERROR_MESSAGE,
    LOAD_ID,
    PADDED_TOKENS,
    PAIR_KEY,
    SCORE,
    SECONDS,
    TOKENS,
)
from udfs.scoring import ScoringSettings, score_udf
from udfs.shipping import ship

SCORE_JOB = "score"
"""The job of the runs that write `scores`."""
ROWS_PER_TASK = 8192
"""Pairs of one Spark task, unless a flag says otherwise."""
GROUPS = 8
"""Groups of pairs of which nobody knows how many there are."""
RESULT = "result"


def score_pairs(pairs: DataFrame, settings: ScoringSettings, tasks: int | None = None) -> DataFrame:
    """Every pair with its score, or with the reason why it has none: `score_blocks` of the blocks of some pairs.

    Args:
        pairs: query_id, passage_id, query, passage (strings, any of them null).
        tasks: how many Spark tasks score them; None leaves it to Spark.
    """
    return score_blocks(blocks_of(pairs, groups_for(tasks)), settings, tasks)


def groups_for(tasks: int | None) -> Hashed:
    """How pairs are grouped that so many tasks will take; see `jobs.engine.grouping`."""
    return Hashed(max(1, tasks // 2) if tasks else GROUPS)


def score_blocks(blocks: DataFrame, settings: ScoringSettings, tasks: int | None = None) -> DataFrame:
    """Every row of blocks with its score, or with the reason why it has none.

    The same blocks make the same batches, and so the same scores, however many tasks there are.

    Args:
        blocks: see `jobs.engine.blocks`.
        settings: the model and how it is run, checked on the driver.
        tasks: to how many Spark tasks they are dealt; None if they lie as they shall be.

    Returns:
        query_id, passage_id, content_hash, score, tokens, padded_tokens, load_id, seconds, error_code, error_message;
        the score is null exactly where the error_code is not. Of rows with the same key, one is scored.
    """
    settings = replace(settings, model=ship(blocks.sparkSession, settings.model))
    scored = dealt(blocks, tasks).withColumn(RESULT, score_udf(settings)(*block_texts()))
    return rows_of(scored, outcome_of(lambda name: F.col(f"{RESULT}.{name}"), SCORE))


def outcome_of(field: Callable[[str], Column], *values: str) -> Outcome:
    """A row's outcome out of what a UDF over blocks returned.

    Args:
        field: a field of what it returned, by name.
        values: the fields that are the row's results, first of all.

    Returns:
        Those, tokens, padded_tokens, load_id, seconds, error_code and error_message.
    """

    def outcome(number: Column, code: Column, message: Column) -> list[Column]:
        return [
            *(F.get(field(name), number).alias(name) for name in (*values, TOKENS, PADDED_TOKENS)),
            F.when(number >= 0, field(LOAD_ID)).alias(LOAD_ID),
            F.when(number == 0, field(SECONDS)).otherwise(0.0).cast("float").alias(SECONDS),
            F.coalesce(code, F.get(field(ERROR_CODE), number)).alias(ERROR_CODE),
            F.coalesce(message, F.get(field(ERROR_MESSAGE), number)).alias(ERROR_MESSAGE),
        ]

    return outcome


def scored_rows(staged: DataFrame, run: Run) -> DataFrame:
    """The staged rows with a score, as `scores` has them."""
    return staged.where(F.col(ERROR_CODE).isNull()).select(
        *PAIR_KEY,
        SCORE,
        F.lit(run.model_version).alias("model_version"),
        CONTENT_HASH,
        F.lit(run.run_id).alias("run_id"),
        F.lit(datetime.now(UTC)).alias("scored_at"),
    )
