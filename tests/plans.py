"""The physical plan of rows, as every kind of session tells it."""

import io
from contextlib import redirect_stdout

from pyspark.sql import DataFrame


def physical_plan(rows: DataFrame) -> str:
    """The plan that Spark would run."""
    with redirect_stdout(io.StringIO()) as told:
        rows.explain()
    return told.getvalue()
