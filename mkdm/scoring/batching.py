"""Batches by token budget: rows of like length together, so that little is spent on padding."""

import numpy as np
from numpy.typing import NDArray


def token_budget_batches(lengths: NDArray[np.int32], token_budget: int) -> list[NDArray[np.int64]]:
    """Group rows, sorted by length, so that rows times the longest of a batch stays within the budget.

    A row longer than the budget makes a batch of its own.

    Args:
        lengths: int[n], tokens of each row.
        token_budget: padded tokens of one batch, at least 1.

    Returns:
        Row numbers, int64[b] per batch, longest first, so that the largest allocation comes first. Every row is in
        exactly one batch.
    """
    order = np.argsort(-lengths, kind="stable")
    batches = []
    start = 0
    while start < len(order):
        rows = max(1, token_budget // max(1, int(lengths[order[start]])))
        batches.append(order[start : start + rows])
        start += rows
    return batches
