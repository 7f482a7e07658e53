"""Reads numbers out of columns whose values may be text, such as all columns of CSV files."""

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import StringType

_PLAIN = r"^\s*[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?\s*$"


def plain_number(rows: DataFrame, column: str) -> Column:
    """A column of numbers or text as double; null where a text is no number as CSV files have them.

    Spark's own cast also takes `10d` and `1f`, as Java writes numbers in programs, and `NaN` and `Infinity`.
    """
    value = F.col(column)
    number = value.try_cast("double")
    if isinstance(rows.schema[column].dataType, StringType):
        number = F.when(value.rlike(_PLAIN), number)
    return number
