import math

import numpy as np
import pytest

from mkdm.evaluation.metrics import accuracy, auc


def test_auc_and_accuracy_by_hand():
    labels, scores = np.array([0, 0, 1, 1]), np.array([0.1, 0.6, 0.4, 0.9], dtype=np.float32)
    assert auc(labels, scores) == pytest.approx(3 / 4)
    assert accuracy(labels, scores) == pytest.approx(1 / 2)


def test_no_auc_with_one_label_alone():
    assert math.isnan(auc(np.array([1, 1]), np.array([0.1, 0.2], dtype=np.float32)))
    assert math.isnan(accuracy(np.array([], dtype=np.int64), np.array([], dtype=np.float32)))
