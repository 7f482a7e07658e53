"""The stages of the scorer: reading ahead, several batches at once, and what happens when one fails."""

import threading

import numpy as np
import pytest
import torch

from mkdm.scoring.backend import LoadedBackend
from mkdm.scoring.backend_choice import load_backend
from mkdm.scoring.scorer import Scorer


class Wrapped:
    """The torch backend of a student behind a hook that sees every batch first."""

    precision, out_of_memory = "fp32", (torch.OutOfMemoryError,)

    def __init__(self, loaded: LoadedBackend, before, streams: int = 1) -> None:
        self.inner, self.before, self.streams = loaded.backend, before, streams
        self.token_budget, self.window = loaded.backend.token_budget, loaded.backend.window

    def score(self, batch):
        self.before(batch)
        return self.inner.score(batch)


def scorer_with(folder, before, streams: int = 1, token_budget: int | None = None) -> Scorer:
    loaded = load_backend(folder, "torch", "fp32")
    wrapped = Wrapped(loaded, before, streams)
    return Scorer(LoadedBackend(wrapped, loaded.tokenizer, loaded.max_length, loaded.model_version), None, token_budget)


def windows_of(texts, size: int):
    return [(texts[0][i : i + size], texts[1][i : i + size]) for i in range(0, len(texts[0]), size)]


@pytest.mark.parametrize("streams", [1, 3])
def test_windows_come_back_in_order(student_folder, texts, streams):
    scorer = scorer_with(student_folder, lambda batch: None, streams, token_budget=500)
    one_by_one = [scorer.score_window(*window).scores for window in windows_of(texts, 40)]
    together = [result.scores for result in scorer.score_windows(iter(windows_of(texts, 40)))]
    for alone, along in zip(one_by_one, together, strict=True):
        np.testing.assert_array_equal(along, alone)


def test_next_window_is_read_and_begun_while_a_result_is_taken(student_folder, texts):
    begun, read = threading.Semaphore(0), []
    scorer = scorer_with(student_folder, lambda batch: begun.release())

    def source():
        for number, window in enumerate(windows_of(texts, 100)):
            read.append(number)
            yield window

    results = scorer.score_windows(source())
    next(results)
    assert begun.acquire(timeout=30), "the first window"
    assert begun.acquire(timeout=30), "the second, which nobody has asked for yet"
    assert read[:2] == [0, 1]
    results.close()


def test_as_many_batches_at_once_as_the_backend_has_streams(student_folder, texts):
    together = threading.Barrier(2)
    scorer = scorer_with(student_folder, lambda batch: together.wait(timeout=30), streams=2, token_budget=10**6)
    scorer.token_budget = 1  # a batch per pair, an even number of them
    result = scorer.score_window(texts[0][:4], texts[1][:4])  # the barrier breaks if one batch waits for another
    assert result.errors == {}


def test_fault_of_the_source_comes_through(student_folder, texts):
    def source():
        yield windows_of(texts, 50)[0]
        raise OSError("the pipe broke")

    results = scorer_with(student_folder, lambda batch: None).score_windows(source())
    with pytest.raises(OSError, match="the pipe broke"):
        list(results)


def test_budget_is_halved_for_good_where_a_batch_does_not_fit(student_folder, texts):
    sizes = []

    def limited(batch):
        sizes.append(batch.input_ids.size)
        if batch.input_ids.size > 600:
            raise torch.OutOfMemoryError("CUDA out of memory")

    expected = Scorer.load(student_folder, precision="fp32").score_window(*texts).scores
    scorer = scorer_with(student_folder, limited, token_budget=4000)
    first = scorer.score_window(*texts)
    assert first.errors == {}
    np.testing.assert_allclose(first.scores, expected, rtol=0, atol=1e-5)
    assert scorer.token_budget <= 600
    sizes.clear()
    scorer.score_window(*texts)
    assert max(sizes) <= 600


def test_a_pair_that_does_not_fit_alone_is_no_fault_of_the_pair(student_folder, texts):
    def never(batch):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(MemoryError, match=r"one pair of \d+ tokens does not fit in the device's memory"):
        scorer_with(student_folder, never).score_window(texts[0][:3], texts[1][:3])
