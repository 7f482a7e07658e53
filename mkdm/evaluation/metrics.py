"""Accuracy and AUC of scores against golden labels."""

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, roc_auc_score


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
