"""The listwise loss by hand, and that a query's pairs stay together on their way to it."""

from math import log

import numpy as np
import pytest
import torch
from training_sets import TEMPLATE, write_training_set

from mkdm.train.list_loss import list_loss, log_softmax_by
from mkdm.train.micro_batches import StageFeed, micro_batches, query_numbers
from mkdm.train.rows import TrainingRows

NAN = float("nan")


def test_log_softmax_of_each_group_is_torch_s():
    values = torch.tensor([[1.0, -5.0], [2.0, 80.0], [0.5, 0.0], [-1.0, 3.0], [7.0, 7.0]])
    group = torch.tensor([0, 1, 0, 1, 2])
    found = log_softmax_by(values, group, 3)
    for number in range(3):
        rows = group == number
        torch.testing.assert_close(found[rows], torch.log_softmax(values[rows], dim=0))


def test_list_loss_by_hand():
    """Query 0 has two passages: the student gives them odds of 3 to 1, the teacher 1 to 1; the first one is golden."""
    golden_logits = torch.tensor([[0.0, log(3)], [0.0, 0.0], [0.0, 1.0]], requires_grad=True)
    soft_logits = torch.tensor([[log(3)], [0.0], [2.0]])
    golden, soft, query = torch.tensor([1, 0, 0]), torch.tensor([[0.5], [0.5], [0.9]]), torch.tensor([0, 0, 1])
    of_golden = -log(3 / 4)  # query 1 has no golden passage
    of_soft = (0.5 * log(0.5 / 0.75) + 0.5 * log(0.5 / 0.25) + 0) / 2  # query 1 has one passage: nothing to order
    found = list_loss(golden_logits, soft_logits, golden, soft, query, 0.9)
    assert found.item() == pytest.approx(0.1 * of_golden + 0.9 * of_soft, abs=1e-6)
    found.backward()
    assert torch.isfinite(golden_logits.grad).all()


def test_pairs_without_a_label_have_no_say_in_the_list():
    golden_logits = torch.tensor([[0.0, 1.0], [0.0, 50.0], [0.0, 2.0]])
    soft_logits = torch.tensor([[1.0], [50.0], [2.0]], requires_grad=True)
    query = torch.tensor([0, 0, 0])
    with_third = list_loss(
        golden_logits, soft_logits, torch.tensor([1, -1, 0]), torch.tensor([[0.8], [NAN], [0.3]]), query, 0.5
    )
    without = list_loss(
        golden_logits[[0, 2]], soft_logits[[0, 2]], torch.tensor([1, 0]), torch.tensor([[0.8], [0.3]]), query[:2], 0.5
    )
    assert with_third.item() == pytest.approx(without.item(), rel=1e-5)
    with_third.backward()
    assert soft_logits.grad[1].item() == pytest.approx(0, abs=1e-6)


def test_without_a_teacher_the_golden_order_is_all():
    golden_logits, query = torch.tensor([[0.0, 0.0], [0.0, log(3)]]), torch.tensor([0, 0])
    found = list_loss(golden_logits, torch.zeros(2, 0), torch.tensor([1, 0]), torch.zeros(2, 0), query, 0.9)
    assert found.item() == pytest.approx(log(4))


def rows_of_queries(numbers: list[int], lengths: list[int] | None = None) -> TrainingRows:
    """Rows whose query is two tokens that tell its number."""
    n = len(numbers)
    ids = np.full((n, 12), 9, dtype=np.int32)
    ids[:, TEMPLATE.query_start] = 100 + np.array(numbers)
    return TrainingRows(
        np.arange(n),
        ids,
        np.array(lengths or [12] * n, dtype=np.int32),
        np.full(n, 2, dtype=np.int32),
        np.zeros(n, dtype=np.int8),
        np.zeros((n, 1), dtype=np.float32),
        np.zeros(n, dtype=np.int8),
    )


def test_queries_are_numbered_by_their_tokens():
    assert query_numbers(rows_of_queries([5, 3, 5, 8, 3]), TEMPLATE).tolist() == [0, 1, 0, 2, 1]


def test_a_query_longer_by_a_token_is_another():
    rows = rows_of_queries([5, 5])
    rows.query_lengths[1] = 3
    assert query_numbers(rows, TEMPLATE).tolist() == [0, 1]


def test_micro_batches_keep_queries_whole_and_every_row():
    numbers = [0, 1, 2, 0, 1, 3, 3, 3, 0, 4]
    rows = rows_of_queries(numbers, [12, 4, 6, 5, 5, 9, 9, 9, 4, 3])
    parts = micro_batches(rows, 30, TEMPLATE)
    assert len(parts) > 1
    assert sorted(np.concatenate([part.pairs for part in parts]).tolist()) == list(range(10))
    homes = [{numbers[pair] for pair in part.pairs} for part in parts]
    assert sum(map(len, homes)) == len(set(numbers))


def test_a_feed_of_whole_queries_has_the_rows_of_any_other(tmp_path):
    training_set = write_training_set(tmp_path / "set", {"train": [40, 50]})
    settings = {"columns": (0, 1), "golden": True, "batch_size": 16, "name": "arrow", "workers": 1, "seed": 0}
    plain = StageFeed(training_set, "train", **settings)
    whole = StageFeed(training_set, "train", **settings, whole_queries=True)
    rows = TrainingRows.concat(list(whole.epoch(0)))
    assert sorted(rows.pairs) == sorted(TrainingRows.concat(list(plain.epoch(0))).pairs)
    assert whole.steps_of_epochs(1) == plain.steps_of_epochs(1)
