"""A bounded queue before one scorer: what waits when the scorer is free goes into one call."""

import asyncio
import math
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

from mkdm.scoring import PairScorer
from mkdm.serving.metrics import Metrics
from mkdm.serving.rerank_request import RequestError


@dataclass(frozen=True)
class Scored:
    """What came of n passages of a query.

    Attributes:
        scores: n, in [0, 1]; NaN where there is an error.
        tokens: of all pairs together, special tokens counted.
        errors: by place, the code and the reason.
    """

    scores: list[float]
    tokens: int
    errors: dict[int, tuple[str, str]]


@dataclass(frozen=True, eq=False)
class _Waiting:
    query: str
    passages: Sequence[str]
    answer: "asyncio.Future[Scored]"


class ScoringQueue:
    """Scores what is asked for, first come first served, in a thread of its own; used in one event loop.

    Args:
        scorer: called by one thread at a time.
        most_pairs: that may wait.
        batch_pairs: of one call at most; a request with more is a call of its own.
        window: seconds that the first of a batch waits for others. What comes while the scorer is busy waits for it
            anyway, and goes together.
    """

    def __init__(self, scorer: PairScorer, most_pairs: int, batch_pairs: int, window: float, metrics: Metrics) -> None:
        self._scorer, self._metrics = scorer, metrics
        self._most, self._batch_pairs, self._window = most_pairs, batch_pairs, window
        self._waiting: deque[_Waiting] = deque()
        self._pairs = 0
        self._arrived, self._enough = asyncio.Event(), asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "mkdm-serve")
        self._seconds_a_pair = 0.01
        self._runner: asyncio.Task[None] | None = None
        self._ends = False

    def start(self) -> None:
        """Begin to score; called in the event loop."""
        self._runner = asyncio.get_running_loop().create_task(self._run())

    @property
    def runs(self) -> bool:
        """Whether what waits is scored."""
        return self._runner is not None and not self._runner.done()

    async def stop(self) -> None:
        """Score what waits, then end."""
        self._ends = True
        self._arrived.set()
        if self._runner is not None:
            await self._runner
        self._thread.shutdown()

    def seconds_to_wait(self) -> int:
        """Until what waits now should be scored; at least 1."""
        return max(1, math.ceil(self._pairs * self._seconds_a_pair))

    async def score(self, query: str, passages: Sequence[str]) -> Scored:
        """Score the pairs of a query. A caller that is cancelled takes them out of the queue.

        Raises:
            RequestError: 429 where the queue has no room for them.
            Exception: what the scorer raised for the whole batch, such as a MemoryError.
        """
        if self._pairs + len(passages) > self._most:
            self._metrics.refused.inc()
            seconds = self.seconds_to_wait()
            raise RequestError(
                429, "overloaded", f"{self._pairs} pairs wait, {self._most} may: ask again in {seconds} s", seconds
            )
        one = _Waiting(query, passages, asyncio.get_running_loop().create_future())
        self._waiting.append(one)
        self._count(len(passages))
        self._arrived.set()
        if self._pairs >= self._batch_pairs:
            self._enough.set()
        try:
            return await one.answer
        finally:
            if one in self._waiting:  # cancelled before its turn
                self._waiting.remove(one)
                self._count(-len(passages))

    def _count(self, pairs: int) -> None:
        self._pairs += pairs
        self._metrics.waiting.set(self._pairs)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._arrived.wait()
            if self._window and self._pairs < self._batch_pairs:
                self._enough.clear()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._enough.wait(), self._window)
            batch = self._take()
            if not batch:
                if self._ends:
                    return
                continue
            try:
                found = await loop.run_in_executor(self._thread, self._score, batch)
            except Exception as error:  # of the whole batch: the next one is tried all the same
                for one in batch:
                    if not one.answer.done():
                        one.answer.set_exception(error)
                continue
            for one, scored in zip(batch, found, strict=True):
                if not one.answer.done():
                    one.answer.set_result(scored)

    def _take(self) -> list[_Waiting]:
        """The requests that come next, as many as fit into a batch."""
        batch: list[_Waiting] = []
        pairs = 0
        while self._waiting and (not batch or pairs + len(self._waiting[0].passages) <= self._batch_pairs):
            batch.append(self._waiting.popleft())
            pairs += len(batch[-1].passages)
        self._count(-pairs)
        if not self._waiting and not self._ends:
            self._arrived.clear()
        return batch

    def _score(self, batch: list[_Waiting]) -> list[Scored]:
        began = time.perf_counter()
        queries = [one.query for one in batch for _ in one.passages]
        passages = [passage for one in batch for passage in one.passages]
        result = self._scorer.score_window(queries, passages)
        seconds = time.perf_counter() - began
        self._metrics.batch_pairs.observe(len(queries))
        self._metrics.batch_seconds.observe(seconds)
        self._seconds_a_pair += 0.2 * (seconds / len(queries) - self._seconds_a_pair)
        found, start = [], 0
        for one in batch:
            end = start + len(one.passages)
            errors = {
                row - start: (str(error.code), error.message)
                for row, error in result.errors.items()
                if start <= row < end
            }
            scores = [float(score) for score in result.scores[start:end]]
            found.append(Scored(scores, int(result.tokens[start:end].sum()), errors))
            start = end
        return found
