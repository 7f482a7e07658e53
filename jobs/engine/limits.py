"""What some sessions refuse, serverless ones above all: settings of Spark's, and rows that are kept on the way."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.storagelevel import StorageLevel


def stored(rows: DataFrame, level: StorageLevel = StorageLevel.DISK_ONLY) -> DataFrame:
    """The rows, kept once they are computed until `released`; where the session keeps none, they are computed again."""
    try:
        return rows.persist(level)
    except PySparkException:  # over Connect the server is asked at once
        return rows


def released(rows: DataFrame) -> None:
    """Let go of what `stored` kept."""
    with suppress(PySparkException):
        rows.unpersist()


@contextmanager
def with_settings(spark: SparkSession, wanted: dict[str, str]) -> Iterator[bool]:
    """Settings of the session inside the block, as they were behind it; whether the session took them all."""
    before: dict[str, str | None] = {}
    taken = True
    for name, value in wanted.items():
        try:
            before[name] = spark.conf.get(name, None)
            spark.conf.set(name, value)
        except PySparkException:
            before.pop(name, None)
            taken = False
    try:
        yield taken
    finally:
        for name, old in before.items():
            if old is None:
                spark.conf.unset(name)
            else:
                spark.conf.set(name, old)
