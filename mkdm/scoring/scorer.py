"""Scores query–passage pairs with any model and backend: sorted by length, batched by token budget, order restored."""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mkdm.errors import ConfigError, InputError, RejectCode
from mkdm.model import PLAIN, Prompting
from mkdm.scoring.backend import Backend, LoadedBackend, TextReader
from mkdm.scoring.backend_choice import load_backend
from mkdm.scoring.batching import token_budget_batches
from mkdm.scoring.block import Block, Texts, block_of
from mkdm.scoring.encoding import EncodedPairs, RowError, bisect_failures
from mkdm.scoring.lexical_part import lexical_shifts, moved
from mkdm.scoring.separate_scoring import PairGroup
from mkdm.scoring.separate_texts import SeparatePairEncoder
from mkdm.scoring.shape_buckets import ShapeBuckets

ScoreRows = Callable[[NDArray[np.int64]], NDArray[np.float32]]
"""int64[B] rows of a block -> float32[B, 2], score and logit."""
Shifts = NDArray[np.float32] | None
"""float32[n], by row of a block how far the model's lexical part moves the logit; None where it has none."""


@dataclass(frozen=True)
class WindowScores:
    """What came of n pairs, in their order.

    Attributes:
        scores: float32[n] in [0, 1]; NaN where the row has an error.
        logits: float32[n], log(score / (1 − score)); NaN where the row has an error.
        tokens: int32[n], tokens of the pair with special tokens; 0 for a row that never reached the model.
        padded_tokens: int32[n], tokens that the model computed for the row, padding included; 0 where it computed none,
            as for the second of two equal pairs. With separate layers, those of the layers that see both texts.
        errors: by row number.
    """

    scores: NDArray[np.float32]
    logits: NDArray[np.float32]
    tokens: NDArray[np.int32]
    padded_tokens: NDArray[np.int32]
    errors: dict[int, RowError]


class PairScorer(ABC):
    """What scores pairs: one model, or several that are averaged.

    Attributes:
        model_version: content hash of the model folder, or of several.
        precision: fp32, bf16, fp16 or int8, as `auto` was settled.
        window: pairs that a caller had best give to one `score_window`.
    """

    model_version: str
    precision: str
    window: int

    @abstractmethod
    def score_blocks(self, blocks: Iterable[Block]) -> Iterator[WindowScores]:
        """Score block after block; of each, its pairs are sorted together.

        Each text of a block is tokenised once, goes through separate layers once, and pairs of the same two texts are
        scored once. A pair that cannot be
        scored becomes an error of its row, never an exception: a batch that raises is halved until it stands alone.
        """

    def score_block(self, queries: Texts, passages: Texts, pairs: ArrayLike | None = None) -> WindowScores:
        """Score the pairs of some queries and passages that meet.

        Args:
            queries: q texts.
            passages: p texts.
            pairs: int[n, 2], by pair the place of its query and that of its passage, from 0. None makes all with all:
                q·p pairs, those of the first query first.

        Returns:
            What came of the n pairs, in their order.

        Raises:
            InputError: `pairs` is no such array, or names a place that is not there.
        """
        return next(self.score_blocks(iter((block_of(queries, passages, pairs),))))

    def score_window(self, queries: Texts, passages: Texts) -> WindowScores:
        """Score n pairs of texts together; see `score_blocks`."""
        return next(self.score_windows(iter(((queries, passages),))))

    def score_windows(self, windows: Iterable[tuple[Texts, Texts]]) -> Iterator[WindowScores]:
        """Score window after window of n queries and n passages; see `score_blocks`."""
        return self.score_blocks(Block.of_pairs(*window) for window in windows)

    def score(self, queries: Sequence[str], passages: Sequence[str]) -> NDArray[np.float32]:
        """Score n pairs.

        Args:
            queries: n texts.
            passages: n texts.

        Returns:
            float32[n] in [0, 1], in the order of the input.

        Raises:
            InputError: the lengths differ, or a pair cannot be scored; the text names the first such pair.
        """
        if len(queries) != len(passages):
            raise InputError(f"{len(queries)} queries but {len(passages)} passages: give one passage per query")
        scores = np.zeros(len(queries), dtype=np.float32)
        starts, size = range(0, len(queries), self.window), self.window
        windows = ((queries[start : start + size], passages[start : start + size]) for start in starts)
        for start, result in zip(starts, self.score_windows(windows), strict=True):
            if result.errors:
                row, error = min(result.errors.items())
                raise InputError(f"pair {start + row} cannot be scored: {error.message} ({error.code})")
            scores[start : start + size] = result.scores
        return scores


class Scorer(PairScorer):
    """A loaded model that scores pairs.

    A block goes through three stages that overlap: it is read and tokenised in one thread, its batches are computed by
    as many threads as the backend has use for, and the caller takes the results of the block before.

    Attributes:
        backend: what runs the model.
        max_length: tokens of a pair at most; the passage is cut to fit, the query never.
        token_budget: padded tokens of a batch; halved for good when a batch does not fit in the device's memory.
    """

    def __init__(self, loaded: LoadedBackend, max_length: int | None = None, token_budget: int | None = None) -> None:
        if max_length is not None and not 0 < max_length <= loaded.max_length:
            raise ConfigError(f"--max-length is {max_length}; this model takes 1 to {loaded.max_length} tokens")
        if token_budget is not None and token_budget < 1:
            raise ConfigError(f"--token-budget is {token_budget}; it must be at least 1")
        self.backend: Backend | TextReader = loaded.backend
        self.model_version = loaded.model_version
        self.precision = loaded.backend.precision
        self.window = loaded.backend.window
        self.max_length = max_length or loaded.max_length
        self.token_budget = token_budget or loaded.backend.token_budget
        self._encoder = loaded.encoder(self.max_length)
        self._lexical = loaded.lexical
        self._buckets: ShapeBuckets | None = getattr(loaded.backend, "buckets", None)
        if self._buckets is not None:
            loaded.backend.buckets = self._buckets = ShapeBuckets(self.token_budget)  # type: ignore[union-attr]
        self._blocks = int(getattr(loaded.backend, "blocks", 2))
        self._reader = ThreadPoolExecutor(1, "mkdm-read")
        self._runner = ThreadPoolExecutor(loaded.backend.streams, "mkdm-run")

    @classmethod
    def load(
        cls,
        folder: str | Path,
        backend: str = "auto",
        precision: str = "auto",
        max_length: int | None = None,
        token_budget: int | None = None,
        threads: int | None = None,
        streams: int | None = None,
        prompting: Prompting = PLAIN,
    ) -> "Scorer":
        """Load a student or teacher from a folder.

        Args:
            folder: Hugging Face folder: safetensors, config.json, fast tokenizer.
            backend: torch, torch-compile, openvino (the IR files that `mkdm export-model` made), or auto: openvino
                where there are such files and no GPU, else torch.
            precision: fp32, bf16, fp16, int8, or auto: the fastest that the machine has, of IR files the fastest
                that passed its quality gate.
            max_length: tokens of a pair; default: as the model was trained.
            token_budget: padded tokens of a batch; default: what suits the device.
            threads: cores to use on a CPU; default: all.
            streams: batches that share them; default: what scores many pairs fastest. 1 scores a single pair fastest.
            prompting: prompt, template and label, where the model's own are not meant.

        Raises:
            ModelError: the folder is missing, incomplete, changed, or no model that scores pairs.
            ConfigError: a setting that the model or machine cannot meet.
        """
        return cls(load_backend(folder, backend, precision, threads, streams, prompting), max_length, token_budget)

    def score_blocks(self, blocks: Iterable[Block]) -> Iterator[WindowScores]:
        """See `PairScorer.score_blocks`; at least two blocks are ahead of the one whose results are taken."""
        source = iter(blocks)

        def read() -> tuple[Block, EncodedPairs, Shifts] | None:
            block = next(source, None)
            if block is None:
                return None
            pairs = self._encoder.encode_block(block)
            return block, pairs, None if self._lexical is None else lexical_shifts(self._lexical, pairs)

        started: deque[_StartedBlock] = deque()
        upcoming = self._reader.submit(read)
        try:
            while (block := upcoming.result()) is not None:
                upcoming = self._reader.submit(read)
                started.append(self._start(*block))
                if len(started) >= self._blocks:  # the next ones keep the backend busy while a result goes its way
                    yield started.popleft().finish()
            while started:
                yield started.popleft().finish()
        finally:
            upcoming.cancel()
            for left in started:
                left.cancel()

    def _start(self, block: Block, pairs: EncodedPairs, shifts: Shifts) -> "_StartedBlock":
        """Hand the batches of a block to the backend."""
        result = WindowScores(
            scores=np.full(len(block), np.nan, dtype=np.float32),
            logits=np.full(len(block), np.nan, dtype=np.float32),
            tokens=pairs.lengths,
            padded_tokens=np.zeros(len(block), dtype=np.int32),
            errors=dict(pairs.errors),
        )
        leader = block.leaders()
        good = np.flatnonzero((pairs.lengths > 0) & (leader == np.arange(len(leader))))
        batches = []
        for group, score, reading in self._groups(block, pairs, good):
            batches += reading
            batches += [
                self._runner.submit(self._score_rows, score, group[batch], shifts, result)
                for batch in token_budget_batches(self._padded(pairs.lengths[group]), self.token_budget)
            ]
        return _StartedBlock(result, leader, batches)

    def _groups(
        self, block: Block, pairs: EncodedPairs, rows: NDArray[np.int64]
    ) -> Iterator[tuple[NDArray[np.int64], ScoreRows, list[Future[None]]]]:
        """The rows in groups, with what scores some of a group, and what of it runs before.

        With separate layers a group's texts are read once, and it is as large as the memory for their states.
        """
        backend, encoder = self.backend, self._encoder
        if not isinstance(backend, TextReader):
            lengths = self._padded(pairs.lengths)
            yield rows, lambda part: backend.score(encoder.batch(pairs, part, int(lengths[part].max()))), []
            return
        assert isinstance(encoder, SeparatePairEncoder)
        places = block.places()
        for part in encoder.divide(pairs, places, rows, backend.state_tokens):
            group = PairGroup(backend, encoder, encoder.texts(pairs, places, part), self._spare_memory)
            yield part, group.score, group.start_reading(self._runner, self.token_budget)

    def _padded(self, lengths: NDArray[np.int32]) -> NDArray[np.int32]:
        """Tokens that rows are padded to at least: their own, or where shapes are few, the next length there is."""
        return lengths if self._buckets is None else self._buckets.lengths(lengths, self.max_length)

    def _score_rows(self, score: ScoreRows, rows: NDArray[np.int64], shifts: Shifts, result: WindowScores) -> None:
        def run(part: list[int]) -> None:
            numbers = np.array(part)
            width = int(self._padded(result.tokens[numbers]).max())
            try:
                outputs = score(numbers)
            except self.backend.out_of_memory as error:
                self._spare_memory(width * len(part), len(part), error)
                raise
            outputs = outputs if shifts is None else moved(outputs, shifts[numbers])
            result.scores[part], result.logits[part] = outputs[:, 0], outputs[:, 1]
            result.padded_tokens[part] = width

        def fail(row: int, error: Exception) -> None:
            result.errors[row] = RowError(RejectCode.MODEL_ERROR, f"{type(error).__name__}: {error}")

        bisect_failures(rows.tolist(), run, fail)

    def _spare_memory(self, tokens: int, rows: int, error: Exception) -> None:
        """Halve the budget after a batch that did not fit; the batch itself is halved by `bisect_failures`."""
        if rows == 1:  # no fault of the row, so it is not rejected: the task fails
            raise MemoryError(f"one pair of {tokens} tokens does not fit in the device's memory: {error}") from error
        self.token_budget = min(self.token_budget, max(1, tokens // 2))


@dataclass(frozen=True)
class _StartedBlock:
    """A block whose batches are being computed.

    Attributes:
        leader: int64[n], by row the first row of the same two texts, which alone is computed.
        batches: what is being done; each fills its rows of the result.
    """

    result: WindowScores
    leader: NDArray[np.int64]
    batches: list[Future[None]]

    def finish(self) -> WindowScores:
        """Wait for all batches."""
        try:
            for batch in self.batches:
                batch.result()
        except BaseException:
            self.cancel()
            raise
        result, leader = self.result, self.leader
        for row in np.flatnonzero((result.tokens > 0) & (leader != np.arange(len(leader)))):
            result.scores[row], result.logits[row] = result.scores[leader[row]], result.logits[leader[row]]
            if leader[row] in result.errors:
                result.errors[int(row)] = result.errors[leader[row]]
        for row in np.flatnonzero(~np.isfinite(result.scores)):
            message = f"the model's score is {result.scores[row]}"
            result.errors.setdefault(int(row), RowError(RejectCode.NON_FINITE_SCORE, message))
        return result

    def cancel(self) -> None:
        """Drop the batches that have not begun."""
        for batch in self.batches:
            batch.cancel()
