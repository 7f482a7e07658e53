import math

import numpy as np
import pytest

from mkdm.evaluation.metrics import accuracy, auc, word_overlap


def test_word_overlap_is_the_share_of_distinct_query_words():
    overlap = word_overlap(["What is a Gasket?", "a a b", "…"], ["a gasket IS a seal", "b", "x"])
    assert overlap.tolist() == pytest.approx([3 / 4, 1 / 2, 0.0])


def test_auc_and_accuracy_by_hand():
    labels, scores = np.array([0, 0, 1, 1]), np.array([0.1, 0.6, 0.4, 0.9], dtype=np.float32)
    assert auc(labels, scores) == pytest.approx(3 / 4)
    assert accuracy(labels, scores) == pytest.approx(1 / 2)


def test_no_auc_with_one_label_alone():
    assert math.isnan(auc(np.array([1, 1]), np.array([0.1, 0.2], dtype=np.float32)))
    assert math.isnan(accuracy(np.array([], dtype=np.int64), np.array([], dtype=np.float32)))
