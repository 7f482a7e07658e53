"""Shows how far a Spark action has come: a bar with rows, pairs/s and ETA on a terminal, plain lines in a log."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any

from pyspark.sql import SparkSession
from tqdm import tqdm

from cluster.connect import is_connect

LINE_EVERY = 15.0
"""Seconds between two lines where stderr is no terminal."""
_POLL = 0.5


@contextmanager
def progress(spark: SparkSession, what: str, total: int, done: int = 0, per_row: int = 1) -> Iterator["Progress"]:
    """Report the rows that are made of what Python UDFs return during the actions inside the block.

    The figure comes from Spark's own SQL metrics, which executors send with every heartbeat; see `Progress`.

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
        tracker.close()
        reporter.close()


class Progress:
    """Rows done so far: of the settled chunks as they are, of the running one as Spark tells.

    Over Spark Connect its server tells tasks, and no rows: a chunk counts as done by the share of its tasks that are.
    """

    def __init__(self, spark: SparkSession, done: int, per_row: int) -> None:
        self._spark, self._settled, self._per_row = spark, done, per_row
        self._expected, self._share = 0, 0.0
        self._running: Callable[[], int] = lambda: 0
        if is_connect(spark):
            spark.registerProgressHandler(self._tasks)
        self._restart()

    def begin(self, rows: int) -> None:
        """Say that a chunk of that many rows is next."""
        self._expected, self._share = rows, 0.0

    def settle(self, rows: int) -> None:
        """Say that a chunk of that many rows is done."""
        self._settled += rows
        self._expected = 0
        self._restart()

    def rows(self) -> int:
        """Rows done so far."""
        return int(self._settled + self._running() // self._per_row + self._expected * self._share)

    def close(self) -> None:
        """Listen no more."""
        if is_connect(self._spark):
            self._spark.removeProgressHandler(self._tasks)

    def _restart(self) -> None:
        if not is_connect(self._spark):
            from cluster.classic import row_counter

            self._running = row_counter(self._spark)

    def _tasks(self, stages: Any, *more: Any, **named: Any) -> None:
        known = [(stage.num_completed_tasks, stage.num_tasks) for stage in stages or ()]
        tasks = sum(number for _, number in known)
        if tasks:
            self._share = max(self._share, min(0.99, sum(done for done, _ in known) / tasks))


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
