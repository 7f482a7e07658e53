"""Metrics of scores as functions of how often each query was drawn, so that a bootstrap of the queries costs little.

All but AUC follow from sums over queries, and AUC from weights of rows.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 10
"""Equal-width bins of the calibration curve and its error."""
TOP_K = 10

Floats = NDArray[np.float64]
Measure = Callable[[Floats], Floats]
"""From draws float64[b, q], how often each of the q queries was drawn, to a metric float64[b]."""


def measures_of(
    query: NDArray[np.int64],
    passage: NDArray[np.int64],
    golden_labels: NDArray[np.int64],
    scores: Floats,
    probabilities: bool = True,
) -> dict[str, Measure]:
    """The metrics of n pairs, as functions of how often each query was drawn.

    Args:
        query: int[n], the number of each pair's query, from 0 without gaps.
        passage: int[n], in the order of passage_id, which breaks ties between scores.
        probabilities: whether scores are such; otherwise accuracy and calibration are left out.

    Returns:
        By metric. `mrr@10` and `ndcg@10` are means over the queries with a golden label 1; NDCG has binary gains and a
        discount of log2 (Järvelin and Kekäläinen 2002); `ece` is the mean distance of the bins' mean scores from their
        shares of golden label 1, weighted by pairs (Naeini et al. 2015): resampling can only add to its noise, so that
        the interval of a small one lies above it. All NaN in a draw where they are not defined.
    """

    def by_query(values: NDArray[Any]) -> Floats:
        return np.bincount(query, weights=values, minlength=query.max() + 1).astype(np.float64, copy=False)

    reciprocal, ndcg, answered = ranking(query, passage, golden_labels, scores)
    measures = {
        "auc": auc_measure(query, golden_labels, scores),
        "mrr@10": _ratio(reciprocal, answered),
        "ndcg@10": _ratio(ndcg, answered),
    }
    if probabilities:
        pairs = by_query(np.ones(len(query)))
        measures["accuracy"] = _ratio(by_query((scores >= 0.5) == (golden_labels == 1)), pairs)
        measures["brier"] = _ratio(by_query((scores - golden_labels) ** 2), pairs)
        place = query * BINS + bins(scores)
        gaps = np.bincount(place, weights=scores - golden_labels, minlength=len(pairs) * BINS).reshape(-1, BINS)
        measures["ece"] = lambda draws: _divide(np.abs(draws @ gaps).sum(axis=1), draws @ pairs)
    return measures


def _ratio(numerator: Floats, denominator: Floats) -> Measure:
    return lambda draws: _divide(draws @ numerator, draws @ denominator)


def _divide(numerator: Floats, denominator: Floats) -> Floats:
    return np.divide(numerator, denominator, out=np.full_like(numerator, math.nan), where=denominator > 0)


def bins(scores: Floats) -> NDArray[np.int64]:
    """The number of each score's bin, int64[n] from 0; a score on an edge belongs to the upper one."""
    return np.clip((scores * BINS).astype(np.int64), 0, BINS - 1)


def auc_measure(query: NDArray[np.int64], golden_labels: NDArray[np.int64], scores: Floats) -> Measure:
    """AUC as a function of how often each query was drawn: the share of (golden 1, golden 0) pairs of rows in order.

    A tie counts half, as in Mann and Whitney's U; sorted once, it costs O(n) per resample.
    """
    ones, zeros = np.flatnonzero(golden_labels == 1), np.flatnonzero(golden_labels != 1)
    ones, zeros = ones[np.argsort(scores[ones])], zeros[np.argsort(scores[zeros])]
    below = np.searchsorted(scores[zeros], scores[ones], "left")
    up_to = np.searchsorted(scores[zeros], scores[ones], "right")

    def measure(draws: Floats) -> Floats:
        weights = draws.take(query[ones], axis=1)
        before = np.zeros((len(draws), len(zeros) + 1))  # weight of the zeros before each place
        np.cumsum(draws.take(query[zeros], axis=1), axis=1, out=before[:, 1:])
        halves = before.take(below, axis=1) + before.take(up_to, axis=1)
        return _divide((weights * halves).sum(axis=1) / 2, weights.sum(axis=1) * before[:, -1])

    return measure


def ranking(
    query: NDArray[np.int64], passage: NDArray[np.int64], golden_labels: NDArray[np.int64], scores: Floats
) -> tuple[Floats, Floats, Floats]:
    """The passages of each query by falling score, ties in the order of `passage`.

    Returns:
        float64[q] each: reciprocal rank of the first golden label 1 if it is in the first ten, else 0; NDCG of the
        first ten, 0 without a golden label 1; and 1 for queries that have one, else 0.
    """
    order = np.lexsort((passage, -scores, query))
    sizes = np.bincount(query)
    rank = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    owner, golden = query[order], golden_labels[order] == 1
    hit = golden & (rank < TOP_K)
    reciprocal = np.zeros(len(sizes))
    np.maximum.at(reciprocal, owner[hit], 1 / (rank[hit] + 1))
    gained = np.bincount(owner[hit], weights=1 / np.log2(rank[hit] + 2), minlength=len(sizes))
    count = np.bincount(owner[golden], minlength=len(sizes))
    ideal = np.concatenate([[0.0], np.cumsum(1 / np.log2(np.arange(TOP_K) + 2))])[np.minimum(count, TOP_K)]
    ndcg = np.divide(gained, ideal, out=np.zeros(len(sizes)), where=ideal > 0)
    return reciprocal, ndcg, (count > 0).astype(np.float64)
