"""The quality gate of an export: how far its scores lie from those of the model in fp32, and what that costs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from mkdm.errors import InputError
from mkdm.evaluation import accuracy, auc

EXACT = 1e-5
"""How far an fp32 score may lie from torch's."""


@dataclass(frozen=True)
class ValidationPairs:
    """n pairs with golden labels, to judge an export by.

    Raises:
        InputError: all golden labels are equal, so that there is no AUC.
    """

    query_ids: Sequence[str]
    queries: Sequence[str]
    passages: Sequence[str]
    golden_labels: NDArray[np.int64]

    def __post_init__(self) -> None:
        if len(np.unique(self.golden_labels)) < 2:
            raise InputError(
                f"the {len(self.golden_labels):,} validation pairs have golden labels of one kind, so there is no AUC "
                f"to judge an export by: give more of them, with --golden-labels or --validation-rows"
            )


def quality(
    scores: NDArray[np.float32], reference: NDArray[np.float32], validation: ValidationPairs
) -> dict[str, float]:
    """Figures of one precision, beside the fp32 scores of torch on the same pairs.

    Args:
        scores: float32[n] in [0, 1]; so too the reference.

    Returns:
        not_finite, how many scores are no number, which count as 0 below; max_score_drift and mean_score_drift, of
        |score − reference|; rank_correlation, Spearman's, the mean over the
        queries whose reference scores differ; accuracy and auc, with accuracy_change and auc_change against the
        reference's (0.002 is 0.2 points).
    """
    finite = np.isfinite(scores)
    scores = np.where(finite, scores, np.float32(0))
    drift = np.abs(scores.astype(np.float64) - reference)
    labels = validation.golden_labels
    return {
        "not_finite": float(np.sum(~finite)),
        "max_score_drift": float(drift.max()),
        "mean_score_drift": float(drift.mean()),
        "rank_correlation": rank_correlation(scores, reference, validation.query_ids),
        "accuracy": accuracy(labels, scores),
        "auc": auc(labels, scores),
        "accuracy_change": accuracy(labels, scores) - accuracy(labels, reference),
        "auc_change": auc(labels, scores) - auc(labels, reference),
    }


def failure(precision: str, figures: dict[str, float], max_auc_loss: float) -> str | None:
    """What of the figures is too bad, or None if they pass.

    Args:
        max_auc_loss: what AUC may fall by; fp32 scores must also lie within EXACT of torch's.
    """
    if figures["not_finite"]:
        return f"{figures['not_finite']:.0f} scores are not finite"
    if -figures["auc_change"] > max_auc_loss:
        return f"AUC falls by {-100 * figures['auc_change']:.2f} points, {100 * max_auc_loss:.2f} are allowed"
    if precision == "fp32" and figures["max_score_drift"] > EXACT:
        return f"a score is {figures['max_score_drift']:.1e} off torch's, {EXACT:.0e} is allowed"
    return None


def rank_correlation(scores: NDArray[np.float32], reference: NDArray[np.float32], query_ids: Sequence[str]) -> float:
    """Spearman's rank correlation of the passages of a query, averaged over the queries whose reference scores differ.

    Returns:
        In [-1, 1]; 1 where no query has two reference scores.
    """
    rows: dict[str, list[int]] = {}
    for row, query_id in enumerate(query_ids):
        rows.setdefault(query_id, []).append(row)
    found = []
    for mine in rows.values():
        expected = rankdata(reference[mine])
        if np.ptp(expected) > 0:
            actual = rankdata(scores[mine])
            found.append(float(np.corrcoef(actual, expected)[0, 1]) if np.ptp(actual) > 0 else 0.0)
    return float(np.mean(found)) if found else 1.0
