"""How good scores are, against golden labels, beside the word-overlap baseline."""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, roc_auc_score

_WORD = re.compile(r"\w+")


def word_overlap(queries: Sequence[str], passages: Sequence[str]) -> NDArray[np.float32]:
    """The baseline that needs no model: the share of a query's distinct words that occur in the passage.

    Args:
        queries: n texts.
        passages: n texts.

    Returns:
        float32[n] in [0, 1]; 0 for a query without words.
    """

    def words(text: str) -> set[str]:
        return set(_WORD.findall(text.lower()))

    pairs = zip(map(words, queries), map(words, passages), strict=True)
    return np.array([len(query & passage) / max(1, len(query)) for query, passage in pairs], dtype=np.float32)


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
