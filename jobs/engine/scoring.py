"""What scoring pairs is: every pair with its score, or with the reason why it has none."""

from datetime import UTC, datetime

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.engine.ledger import Run
from jobs.engine.row_codes import ROW_CODE, ROW_MESSAGE, fit_texts, with_row_code
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

SCORE_JOB = "score"
"""The job of the runs that write `scores`."""
ROWS_PER_TASK = 8192
"""Pairs of one Spark task, unless a flag says otherwise."""


def score_pairs(pairs: DataFrame, settings: ScoringSettings, tasks: int | None = None) -> DataFrame:
    """Every pair with its score, or with the reason why it has none.

    Rows of one query stay together and in order, so that its text is tokenised once; only a query's many passages are
    spread over several tasks. The same rows in the same number of tasks make the same batches, and so the same scores.

    Args:
        pairs: query_id, passage_id, query, passage (strings, any of them null).
        settings: the model and how it is run, checked on the driver.
        tasks: how many Spark tasks score them; None leaves it to Spark.

    Returns:
        query_id, passage_id, content_hash, score, tokens, padded_tokens, load_id, seconds, error_code, error_message;
        the score is null exactly where the error_code is not. Of rows with the same key, one is scored.
    """
    scored = with_row_code(pairs, tasks).withColumn("result", score_udf(settings)(*fit_texts()))
    return scored.select(
        *PAIR_KEY,
        CONTENT_HASH,
        *(F.col(f"result.{name}") for name in (SCORE, TOKENS, PADDED_TOKENS, LOAD_ID, SECONDS)),
        F.coalesce(ROW_CODE, f"result.{ERROR_CODE}").alias(ERROR_CODE),
        F.coalesce(ROW_MESSAGE, f"result.{ERROR_MESSAGE}").alias(ERROR_MESSAGE),
    )


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
