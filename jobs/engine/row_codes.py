"""Which rows of a pairs table no model shall see, and why; and their order, so that texts are tokenised once."""

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from mkdm.columns import CONTENT_HASH, PASSAGE, PASSAGE_ID, QUERY, QUERY_ID, ROW_FAULT
from mkdm.errors import RejectCode

ROW_CODE, ROW_MESSAGE = "row_code", "row_message"
SPREAD = 16
"""Over how many tasks the passages of one query are spread at most, so that a query with 100,000 is no task alone."""


def with_row_code(pairs: DataFrame, tasks: int | None) -> DataFrame:
    """The pairs with `content_hash`, and `row_code` and `row_message` where a row is at fault whatever the model.

    Rows of one query stay together and in order, so that its text is tokenised once; only a query's many passages are
    spread over several tasks. Of rows with the same key, one is without fault.

    Args:
        pairs: query_id, passage_id, query, passage (strings, any of them null); and perhaps row_fault, of files.
        tasks: how many Spark tasks take them; None leaves it to Spark.
    """
    part = F.pmod(F.xxhash64(PASSAGE_ID), F.lit(SPREAD))
    pairs = pairs.withColumn("part", part)
    pairs = pairs.repartition(tasks, QUERY_ID, "part") if tasks else pairs
    fault = F.col(ROW_FAULT) if ROW_FAULT in pairs.columns else F.lit(None).cast("string")
    order = Window.partitionBy(QUERY_ID, "part", PASSAGE_ID).orderBy(fault.isNotNull(), CONTENT_HASH)
    copy = F.row_number().over(order)
    null_key = F.col(QUERY_ID).isNull() | F.col(PASSAGE_ID).isNull()
    unreadable = ~F.is_valid_utf8(QUERY) | ~F.is_valid_utf8(PASSAGE)
    hashed = pairs.withColumn(CONTENT_HASH, F.xxhash64(QUERY, PASSAGE)).withColumn("copy", copy)
    code = (
        F.when(fault.isNotNull(), fault_code(fault))
        .when(null_key, RejectCode.NULL_KEY.value)
        .when(F.col("copy") > 1, RejectCode.DUPLICATE_KEY.value)
        .when(unreadable, RejectCode.INVALID_TEXT.value)
    )
    message = (
        F.when(fault.isNotNull(), fault_message(fault))
        .when(null_key, "query_id or passage_id is null")
        .when(F.col("copy") > 1, "another row has the same query_id and passage_id")
        .when(unreadable, "query or passage is not valid UTF-8")
    )
    return hashed.withColumn(ROW_CODE, code).withColumn(ROW_MESSAGE, message)


def fault_code(fault: Column) -> Column:
    """The error_code of a row_fault, `code: message`."""
    return F.substring_index(fault, ": ", 1)


def fault_message(fault: Column) -> Column:
    """Its error_message."""
    return F.regexp_replace(fault, "^[a-z_]+: ", "")


def fit_texts() -> tuple[Column, Column]:
    """Query and passage of the rows without fault, null for the others: what a model gets to see."""
    fit = F.col(ROW_CODE).isNull()
    return F.when(fit, F.col(QUERY)), F.when(fit, F.col(PASSAGE))
