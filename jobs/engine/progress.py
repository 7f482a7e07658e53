"""Shows how far a Spark action has come: a bar with rows, pairs/s and ETA on a terminal, plain lines in a log."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile
from threading import Event, Thread
from typing import Any

from pyspark.sql import SparkSession
from tqdm import tqdm

LINE_EVERY = 15.0
"""Seconds between two lines where stderr is no terminal."""
_POLL = 0.5


@contextmanager
def progress(spark: SparkSession, what: str, total: int, done: int = 0, per_row: int = 1) -> Iterator["Progress"]:
    """Report the rows that are made of what Python UDFs return during the actions inside the block.

    The figure comes from Spark's own SQL metrics, which executors send with every heartbeat. Where the session does not
    give them (Spark Connect), only the end is reported.

    Args:
        what: what is done, such as "scoring".
        total: rows that the actions will process.
        done: rows of them that were processed before.
        per_row: rows that are made of each.
    """
    finished = Event()
    reporter = _Bar(what, total, done) if sys.stderr.isatty() else _Lines(what, total, done)
    tracker = Progress(spark, done, per_row)

    def watch() -> None:
        while not finished.wait(_POLL):
            reporter.update(tracker.rows())

    thread = Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield tracker
        reporter.update(total)
    finally:
        finished.set()
        thread.join()
        reporter.close()


class Progress:
    """Rows done so far: of the settled chunks as they are, of the running one as Spark tells."""

    def __init__(self, spark: SparkSession, done: int, per_row: int) -> None:
        self._spark, self._settled, self._per_row = spark, done, per_row
        self._running = _row_counter(spark)

    def settle(self, rows: int) -> None:
        """Say that a chunk of that many rows is done."""
        self._settled += rows
        self._running = _row_counter(self._spark)

    def rows(self) -> int:
        """Rows done so far."""
        return int(self._settled + self._running() // self._per_row)


class _Bar:
    def __init__(self, what: str, total: int, done: int = 0) -> None:
        self._total, self._done = total, done
        self._bar = tqdm(total=total, initial=done, desc=what, unit=" pairs", smoothing=0.1, mininterval=0)

    def update(self, done: int) -> None:
        self._bar.update(max(0, min(done, self._total) - self._done))
        self._done = max(self._done, done)
        self._bar.refresh()

    def close(self) -> None:
        self._bar.close()


class _Lines:
    def __init__(self, what: str, total: int, done: int = 0) -> None:
        self._what, self._total, self._before = what, total, done
        self._started = self._told = time.monotonic()
        self._complete = False

    def update(self, done: int) -> None:
        now = time.monotonic()
        if self._complete or (done < self._total and now - self._told < LINE_EVERY):
            return
        self._told, self._complete = now, done >= self._total
        seconds = now - self._started
        rate = (done - self._before) / seconds if seconds else 0.0
        eta = "done" if self._complete else f"{(self._total - done) / rate:.0f} s left" if rate else "starting"
        line = f"{self._what}: {done:,} of {self._total:,} pairs, {rate:,.0f} pairs/s, {seconds:.0f} s so far, {eta}"
        print(line, file=sys.stderr, flush=True)

    def close(self) -> None:
        pass


def _row_counter(spark: SparkSession) -> Any:
    """A function that returns how many rows came of Python UDFs since now, from Spark's SQL status store."""
    try:
        store = spark._jsparkSession.sharedState().statusStore()
        last = _newest(store)
    except Exception:  # Spark Connect, or a store that this Spark keeps elsewhere
        return lambda: 0

    def rows() -> int:
        try:
            executions = store.executionsList()
            newer = range(executions.size() - 1, -1, -1)
            running = takewhile(lambda one: one.executionId() > last, map(executions.apply, newer))
            return max((_python_rows(store, execution) for execution in running), default=0)
        except Exception:  # a plan that changes while it is read; the next poll reads it again
            return 0

    return rows


def _newest(store: Any) -> int:
    """The id of the last SQL execution; the store forgets old ones, so that their count would not do."""
    executions = store.executionsList()
    return int(executions.apply(executions.size() - 1).executionId()) if executions.size() else -1


def _python_rows(store: Any, execution: Any) -> int:
    """Rows that Python UDFs returned; of blocks, the rows that were made of them."""
    values = store.executionMetrics(execution.executionId())
    nodes = store.planGraph(execution.executionId()).allNodes()
    rows: dict[bool, int] = {}
    for node in map(nodes.apply, range(nodes.size())):
        from_python = "EvalPython" in node.name() or "InPandas" in node.name()
        if from_python or node.name() == "Generate":
            rows[from_python] = rows.get(from_python, 0) + _output_rows(node, values)
    return rows.get(False, rows[True]) if True in rows else 0


def _output_rows(node: Any, values: Any) -> int:
    metrics = node.metrics()
    told = (
        values.get(metric.accumulatorId())
        for metric in map(metrics.apply, range(metrics.size()))
        if metric.name() == "number of output rows"
    )
    return sum(int(value.get().replace(",", "")) for value in told if value.isDefined())
