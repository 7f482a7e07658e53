"""Scores the passages of a block by its queries' words: BM25, or the share of the words, as one sparse product."""

from collections import Counter
from collections.abc import Collection, Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from mkdm.text.queries import words

K1, B = 1.2, 0.75
"""How soon a repeated word counts no more, and how much longer passages count less: as in `mkdm.evaluation`'s bm25."""


def word_scores(
    queries: Sequence[str],
    passages: Sequence[str],
    weights: Sequence[NDArray[np.float64]] | None = None,
    mean_length: float = 0.0,
) -> NDArray[np.float64]:
    """How well each passage of a block answers each query, by words alone.

    Time and memory are those of the n × m scores and of the texts. A score is the sum over the query's words in their
    order, so that it does not depend on what else is in the block, to the last bit.

    Args:
        queries: n texts.
        passages: m texts.
        weights: by query, float64[number of its distinct words], in the order of their first occurrence: for BM25
            ln(1 + (N − df + 0.5) / (df + 0.5)) of a word in df of N passages. None for the share of the words.
        mean_length: words of a passage in the mean, for BM25; 0 stands for 1.

    Returns:
        float64[n, m], not negative; 0 where no word of the query occurs in the passage. The BM25 that
        `mkdm.evaluation`'s bm25 gives, or its word_overlap.
    """
    columns: dict[str, int] = {}
    asked = [[columns.setdefault(word, len(columns)) for word in dict.fromkeys(words(query))] for query in queries]
    lengths, known = [], []
    for passage in passages:
        lengths.append(len(found := words(passage)))
        known.append(Counter(map(columns.__getitem__, filter(columns.__contains__, found))))
    counts = np.fromiter((count for row in known for count in row.values()), np.float64)
    if weights is None:
        weight, part = np.array([1 / len(row) for row in asked for _ in row]), np.ones(len(counts))
    else:
        damping = K1 * ((1 - B) + B / (mean_length or 1.0) * np.array(lengths, np.float64))
        part = counts / (counts + np.repeat(damping, [len(row) for row in known]))
        weight = np.concatenate([np.empty(0), *weights])
    return np.asarray((_by_word(asked, weight, len(columns)) @ _by_word(known, part, len(columns)).T).toarray())


def _by_word(rows: Sequence[Collection[int]], values: NDArray[np.float64], number: int) -> csr_matrix:
    """A row per text with the values of its words, each at its place among so many."""
    starts = np.cumsum([0, *map(len, rows)])
    places = np.fromiter(chain.from_iterable(rows), np.int32, starts[-1])
    return csr_matrix((values, places, starts), shape=(len(rows), max(number, 1)))
