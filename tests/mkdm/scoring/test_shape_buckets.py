"""What a GPU is given: few shapes, host buffers in turn, captured passes; all but the capture itself, on a CPU."""

import threading
import warnings

import numpy as np
import pytest
import torch
from tiny_models import tiny_student

from mkdm.model.checkpoint import save_checkpoint
from mkdm.scoring.backend_choice import load_backend
from mkdm.scoring.batching import token_budget_batches
from mkdm.scoring.captured_passes import CapturedPasses
from mkdm.scoring.host_buffers import HostBuffers
from mkdm.scoring.scorer import Scorer
from mkdm.scoring.shape_buckets import ShapeBuckets

BUDGET = 2048


def test_lengths_are_rounded_up_to_few():
    every = np.arange(1025, dtype=np.int32)
    rounded = ShapeBuckets(BUDGET).lengths(every, 1000)
    assert rounded[0] == 0
    assert (rounded >= every).all()
    assert (
        rounded[1:1001] <= np.minimum(np.maximum(every[1:1001] * 1.125 + 1, 8 * np.ceil(every[1:1001] / 8)), 1000)
    ).all()
    assert [int(rounded[length]) for length in (1, 8, 9, 64, 128, 129, 500, 513, 999)] == [
        8,
        8,
        16,
        64,
        128,
        144,
        512,
        576,
        1000,
    ]
    assert len(set(rounded[1:1001])) < 45
    assert (ShapeBuckets(BUDGET).lengths(rounded, 1000) == rounded).all()


def test_rows_are_those_of_a_full_batch_or_a_part_of_one():
    buckets = ShapeBuckets(BUDGET)
    assert [buckets.rows(rows, 144) for rows in (14, 13, 8, 7, 4, 3, 2, 1)] == [14, 14, 14, 7, 4, 4, 2, 1]
    assert buckets.rows(15, 144) == 15, "a batch beyond the budget stays as it is"
    assert buckets.rows(1, 5000) == 1


def test_batches_by_rounded_lengths_are_full_but_for_the_last():
    buckets, lengths = ShapeBuckets(BUDGET), np.random.default_rng(0).integers(90, 161, 4096).astype(np.int32)
    rounded = buckets.lengths(lengths, 160)
    batches = [(len(rows), int(rounded[rows].max())) for rows in token_budget_batches(rounded, BUDGET)]
    assert all(rows == BUDGET // length for rows, length in batches[:-1])
    assert len({(buckets.rows(*one), one[1]) for one in batches}) < 10


class Event:
    """Stands for what CUDA records after a copy."""

    def __init__(self, log: list[str], name: str) -> None:
        self.log, self.name = log, name

    def synchronize(self) -> None:
        self.log.append(self.name)


def test_a_slot_waits_for_its_own_copy_while_the_other_is_filled():
    log, buffers = [], HostBuffers(pinned=False)
    batches = [{"input_ids": np.full((2, 3), number)} for number in range(5)]
    filled = []
    for number, batch in enumerate(batches):
        tensor = buffers.fill(batch, 4)["input_ids"]
        assert tensor.tolist() == [[number] * 3] * 4, "two rows, and the first again for those that fill up"
        assert log == [f"copy {earlier}" for earlier in range(number - 1)], "of the batch before nobody waits"
        filled.append(tensor.data_ptr())
        buffers.sent(Event(log, f"copy {number}"))
    assert filled[0] == filled[2] == filled[4] != filled[1] == filled[3], "no more memory than two batches take"


def test_buffers_grow_with_the_batches_and_keep_every_input():
    buffers = HostBuffers(pinned=False, slots=1)
    small = buffers.fill({"input_ids": np.ones((1, 2), dtype=np.int64)}, 1)
    assert small["input_ids"].shape == (1, 2)
    ids = np.arange(12).reshape(3, 4)
    large = buffers.fill({"input_ids": ids, "attention_mask": ids % 2}, 3)
    assert {name: tensor.tolist() for name, tensor in large.items()} == {
        "input_ids": ids.tolist(),
        "attention_mask": (ids % 2).tolist(),
    }


class FakePass:
    """A captured pass that runs the model anew, into one place."""

    def __init__(self, model, inputs, size: int = 1) -> None:
        self.model, self.bytes, self.runs = model, size, 0

    def run(self, inputs):
        self.runs += 1
        return self.model(**inputs)


def sums(input_ids):
    return input_ids.sum(dim=1, keepdim=True)


def of(rows: int, length: int):
    return {"input_ids": torch.ones(rows, length, dtype=torch.int64)}


def test_a_shape_is_captured_when_it_comes_again_and_the_oldest_goes():
    made = []

    def capture(inputs):
        made.append((tuple(inputs["input_ids"].shape), FakePass(sums, inputs, size=4)))
        return made[-1][1]

    passes = CapturedPasses(sums, capture, most_bytes=8)
    for shape in ((1, 2), (1, 3), (1, 2), (1, 2), (1, 3)):
        assert passes.run(of(*shape)).item() == shape[1]
    assert [shape for shape, _ in made] == [(1, 2), (1, 3)]
    assert [one.runs for _, one in made] == [2, 1]
    passes.run(of(1, 2))
    passes.run(of(1, 4))
    passes.run(of(1, 4))  # a third, for which the one that was not used longest makes room
    passes.run(of(1, 2))
    assert [shape for shape, _ in made] == [(1, 2), (1, 3), (1, 4)]
    passes.run(of(1, 3))
    assert [shape for shape, _ in made] == [(1, 2), (1, 3), (1, 4), (1, 3)]


def test_plain_passes_go_on_when_there_is_no_capture():
    def fails(inputs):
        raise RuntimeError("operation not permitted\nwhen stream is capturing")

    passes = CapturedPasses(sums, fails, most_bytes=8)
    assert passes.run(of(2, 3)).tolist() == [[3], [3]]
    with pytest.warns(UserWarning, match="no CUDA graphs here, .*: operation not permitted when stream is capturing"):
        assert passes.run(of(2, 3)).tolist() == [[3], [3]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert passes.run(of(2, 3)).tolist() == [[3], [3]]


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
def test_scores_in_buckets_are_those_without(family, tokenizers, texts, tmp_path):
    save_checkpoint(tiny_student(family, tokenizers[family]), tokenizers[family], tmp_path)
    expected = Scorer.load(tmp_path, "torch", "fp32").score(*texts)
    loaded = load_backend(tmp_path, "torch", "fp32", streams=2)
    made, lock = [], threading.Lock()

    def capturer(model):
        def capture(inputs):
            with lock:
                made.append(tuple(inputs["input_ids"].shape))
            return FakePass(model, inputs)

        return capture

    backend = loaded.backend
    backend.buckets, backend._capturer, backend.blocks = ShapeBuckets(backend.token_budget), capturer, 4
    scorer = Scorer(loaded)
    windows = [(texts[0][at : at + 50], texts[1][at : at + 50]) for at in range(0, 300, 50)] * 2
    results = list(scorer.score_windows(windows))
    scores = np.concatenate([one.scores for one in results])
    np.testing.assert_allclose(scores, np.concatenate((expected, expected)), rtol=0, atol=1e-5)
    tokens, padded = (np.concatenate([getattr(one, name) for one in results]) for name in ("tokens", "padded_tokens"))
    assert (padded >= tokens).all()
    assert {length for _, length in made} <= set(backend.buckets.lengths(tokens, scorer.max_length))
    assert made, "shapes came again"
    assert len(set(made)) <= len(made) <= 2 * len(set(made)), "once for each thread"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="a CUDA graph is captured on a GPU alone")
def test_scores_of_cuda_graphs(student_folder, texts):
    expected = Scorer.load(student_folder, "torch", "fp32")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first, again = expected.score(*texts), expected.score(*texts)
    np.testing.assert_allclose(again, first, rtol=0, atol=1e-5)
