"""Queries over few rows run without being compiled, which costs more than it saves."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pyspark.sql import SparkSession

from cluster.connect import is_connect
from cluster.session import master_of

_SETTINGS = {
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    "spark.sql.adaptive.enabled": "false",  # which makes a job of each stage, to plan the next by its size
}


@contextmanager
def interpreted(spark: SparkSession) -> Iterator[Callable[[], None]]:
    """Let Spark interpret the queries of a session on one machine until the end, or until it is told to compile.

    Spark makes Java of each query and compiles it, those of Delta Lake over a table's log too: half of the JVM's
    work in a run of ten pairs. A session of a cluster, of a Connect server or with settings of its own stays as it is.

    Yields:
        What makes the session compile again.
    """
    if is_connect(spark) or not master_of(spark).startswith("local"):
        yield lambda: None
        return
    before = {name: spark.conf.get(name, None) for name in _SETTINGS}

    def compile_again() -> None:
        for name, value in before.items():
            if value is None:
                spark.conf.unset(name)
            else:
                spark.conf.set(name, value)

    for name, value in _SETTINGS.items():
        spark.conf.set(name, value)
    try:
        yield compile_again
    finally:
        compile_again()
