"""Sessions of Spark Connect: a client of a server elsewhere, without a JVM, by PySpark's client package alone."""

import os
from functools import lru_cache
from typing import Any

from pyspark.errors import PySparkException
from pyspark.sql import SparkSession, functions

from cluster.errors import ClusterError

VARIABLE = "SPARK_REMOTE"
"""PySpark's own variable for the address of a Connect server."""


def is_connect(spark: Any) -> bool:
    """Whether a session, or a DataFrame, is one of Spark Connect."""
    return any(one.__module__.startswith("pyspark.sql.connect.") for one in type(spark).__mro__)


def connect(url: str | None, app_name: str) -> SparkSession:
    """A session of the server at that address; None leaves it to $SPARK_REMOTE, or to what started this Python.

    Args:
        url: sc://HOST:PORT, with parameters as PySpark takes them.

    Raises:
        ClusterError: packages of the client are missing, the address is none, or no server answers there.
    """
    if url is not None and not url.startswith("sc://"):
        raise ClusterError(f"--remote is {shown(url)}; the address of a Spark Connect server begins with sc://")
    where = shown(url or os.environ.get(VARIABLE) or "the address that this Python was given")
    builder = SparkSession.builder.appName(app_name)
    try:
        spark = (builder.remote(url) if url else builder).getOrCreate()
        spark.version  # noqa: B018  (asks the server)
    except ImportError as error:
        first = str(error).strip().partition("\n")[0]
        raise ClusterError(f"Spark Connect needs packages: pip install 'mkdm[connect]' ({first})") from error
    except (PySparkException, RuntimeError) as error:
        first = str(error).strip().partition("\n")[0]
        raise ClusterError(f"no Spark Connect server answers at {where}: {first}") from error
    return spark


def setting(spark: SparkSession, name: str) -> str | None:
    """A setting of the server's; None where there is none, or the server keeps it to itself."""
    try:
        return spark.conf.get(name, None)
    except PySparkException:
        return None


@lru_cache(maxsize=8)
def default_parallelism(spark: SparkSession) -> int:
    """How many tasks run at once, as the parts of a range tell: no session of Connect tells it otherwise."""
    parts = spark.range(1 << 16).select(functions.spark_partition_id().alias("part")).agg(functions.max("part")).first()
    return int(parts[0]) + 1  # type: ignore[index]


def shown(url: str) -> str:
    """An address without its parameters, among which there may be a token."""
    return url.partition(";")[0]
