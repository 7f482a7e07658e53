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

from cluster.connect import is_connect
from jobs.engine.ledger import Totals

PREFIX = "mkdm."
FIGURES = ("rows_read", "rows_written", "rows_rejected", "tokens", "padded_tokens", "model_loads", "chunks", "millis")
"""What is told, summed over the chunks that this driver committed; model_loads are the most of any chunk."""
_DESCRIPTION = "spark.job.description"


@contextmanager
def described(spark: SparkSession, text: str) -> Iterator[None]:
    """Spark jobs started inside the block have this description in the UI and the event log."""
    if is_connect(spark):
        yield
        return
    from cluster.classic import local_property, set_local_property

    before = local_property(spark, _DESCRIPTION)
    set_local_property(spark, _DESCRIPTION, text)
    try:
        yield
    finally:
        set_local_property(spark, _DESCRIPTION, before)


def tell_spark(spark: SparkSession, totals: Totals) -> None:
    """Add a chunk's figures. Over Spark Connect, and where a vendor's Spark lacks a class, nothing happens."""
    if is_connect(spark):
        return
    from cluster.classic import accumulators

    try:
        made = accumulators(spark, [PREFIX + name for name in FIGURES])
        sums = {name: made[PREFIX + name] for name in FIGURES}
        chunk = {name: getattr(totals, name) for name in FIGURES if hasattr(totals, name)}
        chunk |= {"padded_tokens": round(totals.tokens / (1 - totals.padding_ratio)), "chunks": 1}
        chunk |= {"millis": round(totals.seconds * 1000)}
        chunk["model_loads"] = max(0, totals.model_loads - int(sums["model_loads"].value()))
        for name, value in chunk.items():
            sums[name].add(value)
        _log_event(spark, sums)
    except Exception:  # these are figures beside the work: whatever a vendor's Spark lacks, the run goes on
        return


def _log_event(spark: SparkSession, sums: dict[str, Any]) -> None:
    """Put the sums so far on all Spark jobs that follow, whose starts the event log keeps with their properties.

    Events that give a finished SQL execution more metrics are no way: Spark's UI then forgets what it knew of it.
    """
    from cluster.classic import set_local_property

    for name, accumulator in sums.items():
        set_local_property(spark, PREFIX + name, str(int(accumulator.value())))
