import numpy as np
import pytest

from mkdm.errors import InputError
from mkdm.export.quality_gate import ValidationPairs, failure, quality, rank_correlation

LABELS = np.array([1, 0, 1, 0])
PAIRS = ValidationPairs(["a", "a", "b", "b"], ["q"] * 4, ["p"] * 4, LABELS)
REFERENCE = np.array([0.9, 0.2, 0.6, 0.4], dtype=np.float32)


def test_figures_by_hand():
    figures = quality(np.array([0.9, 0.3, 0.35, 0.4], dtype=np.float32), REFERENCE, PAIRS)
    assert figures == pytest.approx(
        {
            "not_finite": 0,
            "max_score_drift": 0.25,
            "mean_score_drift": (0.1 + 0.25) / 4,
            "rank_correlation": (1 - 1) / 2,  # query a in order, query b turned round
            "accuracy": 0.75,
            "auc": 0.75,
            "accuracy_change": -0.25,
            "auc_change": -0.25,
        },
        abs=1e-6,
    )


def test_rank_correlation_leaves_out_queries_without_an_order():
    scores = np.array([0.1, 0.2, 0.3, 0.7], dtype=np.float32)
    assert rank_correlation(scores, scores, ["a", "b", "b", "c"]) == pytest.approx(1.0)
    assert rank_correlation(scores, np.full(4, 0.5, np.float32), ["a", "a", "a", "a"]) == 1.0
    assert rank_correlation(np.full(4, 0.5, np.float32), scores, ["a", "a", "a", "a"]) == 0.0


@pytest.mark.parametrize(
    ("precision", "auc_change", "drift", "said"),
    [
        ("int8", -0.0019, 0.3, None),
        ("int8", -0.0021, 0.0, "AUC falls by 0.21 points, 0.20 are allowed"),
        ("fp32", 0.0, 9e-6, None),
        ("fp32", 0.0, 2e-5, "a score is 2.0e-05 off torch's"),
        ("bf16", 0.0, 2e-2, None),
    ],
)
def test_gate(precision, auc_change, drift, said):
    found = failure(precision, {"not_finite": 0, "auc_change": auc_change, "max_score_drift": drift}, 0.002)
    assert found == said if said is None else said in found


def test_scores_that_are_no_number_never_pass():
    figures = quality(np.array([0.9, np.nan, np.inf, 0.4], dtype=np.float32), REFERENCE, PAIRS)
    assert failure("int8", figures, 1.0) == "2 scores are not finite"


def test_golden_labels_of_one_kind_are_refused():
    with pytest.raises(InputError, match="the 2 validation pairs have golden labels of one kind"):
        ValidationPairs(["a", "b"], ["q"] * 2, ["p"] * 2, np.array([1, 1]))
