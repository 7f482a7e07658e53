"""A block's pairs by a student with separate layers: first each text once, then the pairs over their states."""

from collections.abc import Callable
from concurrent.futures import Executor, Future
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mkdm.scoring.backend import Backend, TextReader
from mkdm.scoring.batching import token_budget_batches
from mkdm.scoring.encoding import EncodedPairs, PairEncoder, bisect_failures
from mkdm.scoring.separate_texts import PairTexts, SeparatePairEncoder
from mkdm.scoring.token_cache import distinct_ids

SpareMemory = Callable[[int, int, Exception], None]


class PairGroup:
    """Some pairs of a block, and the states of their texts, which are there from the first reading on.

    Args:
        spare_memory: told tokens and rows of a batch that did not fit.
    """

    def __init__(
        self, reader: TextReader, encoder: SeparatePairEncoder, texts: PairTexts, spare_memory: SpareMemory
    ) -> None:
        self._reader, self._encoder, self._texts, self._spare_memory = reader, encoder, texts, spare_memory
        self._states: Any = None
        self._lock = Lock()
        self._failed: dict[int, Exception] = {}
        self._readings: list[Future[None]] = []

    def start_reading(self, runner: Executor, token_budget: int) -> list[Future[None]]:
        """Have all texts read, by batches."""
        batches = token_budget_batches(self._texts.lengths.astype(np.int32), token_budget)
        self._readings = [runner.submit(self._read, batch) for batch in batches]
        return self._readings

    def _read(self, texts: NDArray[np.int64]) -> None:
        with self._lock:
            if self._states is None:
                self._states = self._reader.new_states(self._texts.tokens)

        def read(part: list[int]) -> None:
            chosen = np.array(part)
            batch = self._encoder.text_batch(self._texts, chosen)
            try:
                self._reader.read(batch, self._states, self._texts.state_rows(chosen))
            except self._reader.out_of_memory as error:
                self._spare_memory(batch.input_ids.size, len(part), error)
                raise

        bisect_failures(texts.tolist(), read, self._failed.__setitem__)

    def score(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """float32[B, 2], score and logit of some of its pairs; waits until their texts are read.

        Raises:
            Exception: what the model raised for a text or for these pairs.
        """
        for reading in self._readings:
            reading.result()
        for text in self._texts.of_pair[rows].ravel().tolist():
            if text in self._failed:
                raise self._failed[text]
        return self._reader.score_pairs(self._states, self._texts.pair_batch(rows))


def score_at_once(backend: Backend | TextReader, encoder: PairEncoder, pairs: EncodedPairs) -> NDArray[np.float32]:
    """float32[n, 2] of a few pairs without errors, in one batch; where texts are read apart, these in one too."""
    rows = np.arange(len(pairs.lengths))
    if not isinstance(backend, TextReader):
        return backend.score(encoder.batch(pairs, rows))
    if not isinstance(encoder, SeparatePairEncoder):
        raise TypeError("a backend that reads texts apart takes pairs that are encoded so")
    places = np.stack([distinct_ids(ids)[1] for ids in (pairs.query_ids, pairs.passage_ids)], axis=1)
    texts = encoder.texts(pairs, places, rows)
    every = np.arange(len(texts.ids))
    states = backend.new_states(texts.tokens)
    backend.read(encoder.text_batch(texts, every), states, texts.state_rows(every))
    return backend.score_pairs(states, texts.pair_batch(rows))
