"""Which rows of a pairs table no model shall see, and why."""

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from mkdm.columns import CONTENT_HASH, PASSAGE, PASSAGE_ID, QUERY, QUERY_ID, ROW_FAULT
from mkdm.errors import RejectCode

ROW_CODE, ROW_MESSAGE = "row_code", "row_message"
UNFIT_LAST, QUERY_HASH, PASSAGE_HASH = "unfit_last", "query_hash", "passage_hash"
COPY_ORDER = (UNFIT_LAST, QUERY_HASH, PASSAGE_HASH)
"""Of the rows of one key the first is the one without fault. They are in this order wherever they are looked at."""


def with_row_code(pairs: DataFrame) -> DataFrame:
    """The pairs with `content_hash`, and `row_code` and `row_message` where a row is at fault whatever the model.

    Of rows with the same key, one is without fault.

    Args:
        pairs: query_id, passage_id, query, passage (strings, any of them null); and perhaps row_fault, of files.
    """
    return coded(with_copy_order(pairs), PASSAGE_ID, QUERY_ID).withColumn(CONTENT_HASH, F.xxhash64(QUERY, PASSAGE))


def with_copy_order(pairs: DataFrame) -> DataFrame:
    """The pairs with the columns of COPY_ORDER."""
    hashes = {QUERY_HASH: F.xxhash64(QUERY), PASSAGE_HASH: F.xxhash64(PASSAGE)}
    return pairs.withColumns(hashes | {UNFIT_LAST: _fault(pairs).isNotNull()})


def coded(pairs: DataFrame, *together: str) -> DataFrame:
    """The pairs with `row_code` and `row_message`.

    Args:
        pairs: as `with_copy_order` gives them.
        together: the columns by which the rows of one key lie together.
    """
    fault, copy = _fault(pairs), F.row_number().over(Window.partitionBy(*together).orderBy(*COPY_ORDER))
    null_key = F.col(QUERY_ID).isNull() | F.col(PASSAGE_ID).isNull()
    unreadable = ~F.is_valid_utf8(QUERY) | ~F.is_valid_utf8(PASSAGE)
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
    return pairs.withColumn("copy", copy).withColumn(ROW_CODE, code).withColumn(ROW_MESSAGE, message)


def _fault(pairs: DataFrame) -> Column:
    return F.col(ROW_FAULT) if ROW_FAULT in pairs.columns else F.lit(None).cast("string")


def fault_code(fault: Column) -> Column:
    """The error_code of a row_fault, `code: message`."""
    return F.substring_index(fault, ": ", 1)


def fault_message(fault: Column) -> Column:
    """Its error_message."""
    return F.regexp_replace(fault, "^[a-z_]+: ", "")
