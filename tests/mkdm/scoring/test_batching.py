import numpy as np
import pytest

from mkdm.scoring.batching import token_budget_batches


@pytest.mark.parametrize("budget", [1, 7, 64, 10_000])
def test_every_row_once_within_the_budget_and_longest_first(budget):
    lengths = np.random.default_rng(0).integers(1, 50, size=200).astype(np.int32)
    batches = token_budget_batches(lengths, budget)
    assert sorted(np.concatenate(batches)) == list(range(200))
    for batch in batches:
        assert len(batch) == 1 or lengths[batch].max() * len(batch) <= budget
    order = lengths[np.concatenate(batches)]
    assert (np.diff(order) <= 0).all()


def test_nothing_makes_no_batch():
    assert token_budget_batches(np.zeros(0, dtype=np.int32), 10) == []
