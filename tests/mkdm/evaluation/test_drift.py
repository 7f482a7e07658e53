import math

import numpy as np
import pytest
from scipy.stats import ks_2samp

from mkdm.evaluation.drift import ks, psi, reading


def binned(values: np.ndarray) -> list[int]:
    return np.histogram(values, 1000, (0, 1))[0].tolist()


@pytest.fixture(scope="module")
def two() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.beta(1, 2, 5000), rng.beta(1.4, 2, 8000)


def test_ks_is_scipy_s_up_to_the_bins(two):
    assert ks(binned(two[0]), binned(two[1])) == pytest.approx(ks_2samp(*two).statistic, abs=2e-3)


def test_psi_is_that_of_the_deciles(two):
    edges = np.quantile(two[0], np.linspace(0, 1, 11))
    edges[0], edges[-1] = 0, 1
    old, new = (np.histogram(one, edges)[0] / len(one) for one in two)
    expected = ((new - old) * np.log(new / old)).sum()
    assert psi(binned(two[0]), binned(two[1])) == pytest.approx(expected, rel=0.02)


def test_equal_scores_have_no_drift(two):
    counts = binned(two[0])
    assert psi(counts, counts) == pytest.approx(0, abs=1e-12)
    assert ks(counts, counts) == 0
    assert psi(counts, [10 * one for one in counts]) == pytest.approx(0, abs=1e-6)


def test_scores_that_share_no_bin_are_a_shift_and_finite():
    low, high = [100, 0, 0, 0], [0, 0, 0, 100]
    assert ks(low, high) == 1
    assert math.isfinite(psi(binned(np.full(99, 0.1)), binned(np.full(99, 0.9))))
    assert reading(psi(binned(np.linspace(0, 0.4, 99)), binned(np.linspace(0.6, 1, 99)))) == "a shift"


def test_nothing_to_compare_is_not_defined():
    assert math.isnan(psi([0, 0], [1, 1]))
    assert math.isnan(ks([1, 1], [0, 0]))
    assert [reading(one) for one in (math.nan, 0.05, 0.2, 0.3)] == ["not defined", "stable", "some shift", "a shift"]
