"""Tells Spark what a run has done: in its UI, its metrics system and its event log, for the dashboards that read them.

A gauge of each figure stands under AccumulatorSource in Spark's metrics system (Prometheus, JMX, Graphite: whatever
`metrics.properties` names). The event log gets the same figures, by name, as properties of the jobs that follow.
They are Spark's own accumulators, which the driver adds to when a chunk is committed: accumulators that tasks add to
would count twice what is tried again, and those of Python workers have no name, so that neither UI nor log shows them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pyspark.sql import SparkSession

from jobs.engine.ledger import Totals

PREFIX = "mkdm."
FIGURES = ("rows_read", "rows_written", "rows_rejected", "tokens", "padded_tokens", "model_loads", "chunks", "millis")
"""What is told, summed over the chunks that this driver committed; model_loads are the most of any chunk."""
_DESCRIPTION = "spark.job.description"
_metrics: dict[str, dict[str, Any]] = {}
"""By Spark application, its accumulators: a metrics source can be registered once."""


@contextmanager
def described(spark: SparkSession, text: str) -> Iterator[None]:
    """Spark jobs started inside the block have this description in the UI and the event log."""
    context = getattr(spark, "_sc", None)
    if context is None:  # Spark Connect
        yield
        return
    before = context.getLocalProperty(_DESCRIPTION)
    context.setLocalProperty(_DESCRIPTION, text)
    try:
        yield
    finally:
        context.setLocalProperty(_DESCRIPTION, before)


def tell_spark(spark: SparkSession, totals: Totals) -> None:
    """Add a chunk's figures. Where the JVM is out of reach, as in Spark Connect, or lacks a class, nothing happens."""
    try:
        sums = _accumulators(spark)
        chunk = {name: getattr(totals, name) for name in FIGURES if hasattr(totals, name)}
        chunk |= {"padded_tokens": round(totals.tokens / (1 - totals.padding_ratio)), "chunks": 1}
        chunk |= {"millis": round(totals.seconds * 1000)}
        chunk["model_loads"] = max(0, totals.model_loads - int(sums["model_loads"].value()))
        for name, value in chunk.items():
            sums[name].add(value)
        _log_event(spark, sums)
    except Exception:  # these are figures beside the work: whatever a vendor's Spark lacks, the run goes on
        return


def _accumulators(spark: SparkSession) -> dict[str, Any]:
    application = spark.sparkContext.applicationId
    if application not in _metrics:
        jvm: Any = spark._jvm
        context = spark._jsc.sc()
        made = {name: context.longAccumulator(PREFIX + name) for name in FIGURES}
        source = getattr(jvm.org.apache.spark.metrics.source, "LongAccumulatorSource$")
        named = jvm.PythonUtils.toScalaMap({PREFIX + name: one for name, one in made.items()})
        getattr(source, "MODULE$").register(context, named)
        _metrics[application] = made
    return _metrics[application]


def _log_event(spark: SparkSession, sums: dict[str, Any]) -> None:
    """Put the sums so far on all Spark jobs that follow, whose starts the event log keeps with their properties.

    Events that give a finished SQL execution more metrics are no way: Spark's UI then forgets what it knew of it.
    """
    for name, accumulator in sums.items():
        spark.sparkContext.setLocalProperty(PREFIX + name, str(int(accumulator.value())))
