"""Queries over few rows run without being compiled, which costs more than it saves."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from pyspark.sql import SparkSession

from cluster.connect import is_connect
from cluster.session import master_of
from jobs.engine.limits import with_settings

INTERPRETED_ROWS = 10_000
"""Rows of a run up to which Spark loses less by interpreting its queries than by compiling them."""
_SETTINGS = {
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    "spark.sql.adaptive.enabled": "false",  # which makes a job of each stage, to plan the next by its size
}


@contextmanager
def interpreted(spark: SparkSession) -> Iterator[Callable[[], None]]:
    """Let Spark interpret the queries of a session on one machine until the end, or until it is told to compile.

    Spark makes Java of each query and compiles it, those of Delta Lake over a table's log too: half of the JVM's
    work in a run of ten pairs. A session of a cluster or of a Connect server stays as it is.

    Yields:
        What makes the session compile again.
    """
    with ExitStack() as settings:
        if not is_connect(spark) and master_of(spark).startswith("local"):
            settings.enter_context(with_settings(spark, _SETTINGS))
        yield settings.close
