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
def progress(spark: SparkSession, what: str, total: int, done: int = 0) -> Iterator["Progress"]:
    """Report the rows that Python UDFs return during the actions inside the block.

    The figure comes from Spark's own SQL metrics, which executors send with every heartbeat. Where the session does not
    give them (Spark Connect), only the end is reported.

    Args:
        what: what is done, such as "scoring".
        total: rows that the actions will process.
        done: rows of them that were processed before.
    """
    finished = Event()
    reporter = _Bar(what, total, done) if sys.stderr.isatty() else _Lines(what, total, done)
    tracker = Progress(spark, done)

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

    def __init__(self, spark: SparkSession, done: int) -> None:
        self._spark, self._settled = spark, done
        self._running = _row_counter(spark)

    def settle(self, rows: int) -> None:
        """Say that a chunk of that many rows is done."""
        self._settled += rows
        self._running = _row_counter(self._spark)

    def rows(self) -> int:
        """Rows done so far."""
        return int(self._settled + self._running())


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
    """A function that returns how many rows Python UDFs returned since now, from Spark's SQL status store."""
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
    values = store.executionMetrics(execution.executionId())
    nodes = store.planGraph(execution.executionId()).allNodes()
    total = 0
    for i in range(nodes.size()):
        node = nodes.apply(i)
        if "EvalPython" not in node.name() and "InPandas" not in node.name():
            continue
        metrics = node.metrics()
        for j in range(metrics.size()):
            metric = metrics.apply(j)
            if metric.name() == "number of output rows":
                value = values.get(metric.accumulatorId())
                if value.isDefined():
                    total += int(value.get().replace(",", ""))
    return total
