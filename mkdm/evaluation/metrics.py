"""How good scores are, against golden labels, and the baselines beside them that need no model."""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, roc_auc_score

from mkdm.text import words


def word_overlap(queries: Sequence[str], passages: Sequence[str]) -> NDArray[np.float32]:
    """The baseline that needs no model: the share of a query's distinct words that occur in the passage.

    Args:
        queries: n texts.
        passages: n texts.

    Returns:
        float32[n] in [0, 1]; 0 for a query without words.
    """
    pairs = [(set(words(query)), set(words(passage))) for query, passage in zip(queries, passages, strict=True)]
    return np.array([len(query & passage) / max(1, len(query)) for query, passage in pairs], dtype=np.float32)


def bm25(queries: Sequence[str], passages: Sequence[str], k1: float = 1.2, b: float = 0.75) -> NDArray[np.float32]:
    """The BM25 of each pair (Robertson and Zaragoza, The Probabilistic Relevance Framework, 2009).

    Document frequencies and the average length are those of the distinct passages given. A word of the query counts
    once; its weight is log(1 + (N - df + 0.5) / (df + 0.5)), as in Lucene, so that none counts against a passage.

    Args:
        queries: n texts.
        passages: n texts.
        k1: how soon a repeated word counts no more.
        b: how much longer passages count less, in [0, 1].

    Returns:
        float32[n], not negative; 0 where no word of the query occurs in the passage.
    """
    counted = {passage: Counter(words(passage)) for passage in passages}
    length = {passage: counts.total() for passage, counts in counted.items()}
    average = sum(length.values()) / max(1, len(length)) or 1.0
    frequency = Counter(word for counts in counted.values() for word in counts)
    weight = {word: math.log(1 + (len(counted) - df + 0.5) / (df + 0.5)) for word, df in frequency.items()}

    def one(query: str, passage: str) -> float:
        counts, norm = counted[passage], k1 * (1 - b + b * length[passage] / average)
        distinct = dict.fromkeys(words(query))  # in order: a set would round differently each time
        return sum(weight[word] * counts[word] / (counts[word] + norm) for word in distinct if word in counts)

    return np.array([one(query, passage) for query, passage in zip(queries, passages, strict=True)], dtype=np.float32)


def auc(golden_labels: NDArray[np.int64], scores: NDArray[np.float32]) -> float:
    """Area under the ROC curve; NaN where only one of the two labels occurs."""
    if len(np.unique(golden_labels)) < 2:
        return float("nan")
    return float(roc_auc_score(golden_labels, scores))


def accuracy(golden_labels: NDArray[np.int64], scores: NDArray[np.float32], threshold: float = 0.5) -> float:
    """Share of pairs whose score lies on their golden label's side of the threshold; NaN without pairs."""
    if len(golden_labels) == 0:
        return float("nan")
    return float(accuracy_score(golden_labels, scores >= threshold))
