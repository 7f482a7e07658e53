"""The map from a student's scores to a teacher's: it rises, stays in [0, 1], and is the isotonic regression."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyspark.sql import functions as F
from sklearn.isotonic import IsotonicRegression

from jobs.rescoring.calibration import KNOTS, Calibration

SCORES = st.floats(0, 1, width=32)
"""Any score; and few different ones, many of them equal."""
PAIRS = st.lists(st.tuples(SCORES, SCORES)) | st.lists(st.tuples(*[st.sampled_from([0.0, 0.25, 0.5, 1.0])] * 2))


def fitted(pairs) -> Calibration:
    student, teacher = np.array(pairs, dtype=np.float32).reshape(-1, 2).T
    return Calibration.fit(student, teacher)


def noisy(seed: int, pairs: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores of a student, and of a teacher that thinks alike, on a curve of its own."""
    chosen = np.random.default_rng(seed)
    student = chosen.beta(0.5, 1.5, pairs)
    teacher = np.clip(student**2 + 0.2 * chosen.normal(size=pairs), 0, 1)
    return student.astype(np.float32), teacher.astype(np.float32)


@settings(deadline=None, max_examples=150)
@given(PAIRS)
def test_it_rises_from_0_to_1_whatever_the_scores_are(pairs):
    found = fitted(pairs)
    assert (found.student[0], found.student[-1]) == (0, 1)
    assert np.all(np.diff(found.student) > 0)
    assert np.all(np.diff(found.teacher) >= 0)
    assert 0 <= found.teacher[0] <= found.teacher[-1] <= 1
    assert len(found.student) <= KNOTS + 2
    at = np.linspace(0, 1, 501)
    assert np.all(np.diff(found.at(at)) >= 0)
    assert fitted(pairs[::-1]) == found, "the order of the rows is no matter"


def test_different_scores_stay_different():
    student, teacher = noisy(0, 3000)
    found = Calibration.fit(student, teacher)
    assert len(found.student) > 10
    assert np.all(np.diff(found.at(np.unique(student))) > 0), "but for the rounding of a float32"


def test_without_a_pair_it_changes_nothing():
    assert fitted([]) == Calibration() == Calibration((0.0, 1.0), (0.0, 1.0))
    assert fitted([(0.25, 0.5)]) == Calibration((0.0, 0.25, 1.0), (0.0, 0.5, 1.0))


@pytest.mark.parametrize(("seed", "pairs"), [(0, 20), (1, 200), (2, 20_000)])
def test_its_knots_are_the_steps_of_the_isotonic_regression(seed, pairs):
    """At each step's middle it gives the step, or the mean of neighbours where there are too many of them."""
    student, teacher = noisy(seed, pairs)
    found = Calibration.fit(student, teacher)
    steps = IsotonicRegression().fit_transform(student, teacher)
    middles = {step: student[np.isclose(steps, step)].mean() for step in np.unique(steps)}
    if len(middles) <= KNOTS:
        inside = dict(zip(found.teacher, found.student, strict=True))
        assert len(found.teacher) - len(middles) in (0, 1, 2), "besides the ends"
        for step, middle in middles.items():
            value = min(inside, key=lambda one, step=step: abs(one - step))
            assert (value, inside[value]) == (pytest.approx(step, abs=1e-6), pytest.approx(middle, abs=1e-6))
    else:
        error = np.abs(found.at(student) - steps)
        assert error.mean() < 0.02
    assert found.at(student).mean() == pytest.approx(teacher.mean(), abs=0.02), "no higher and no lower on the whole"


def test_a_column_is_mapped_as_an_array_is(spark):
    student, teacher = noisy(3, 400)
    found = Calibration.fit(student, teacher)
    some = np.unique(np.concatenate([student[:40], [0, 1], np.float32(found.student)])).astype(np.float32)
    rows = spark.createDataFrame([(float(one),) for one in some], "score float")
    mapped = np.array([row[0] for row in rows.select(found.column(F.col("score"))).collect()])
    np.testing.assert_allclose(mapped, found.at(some), atol=1e-12)
    assert np.all(np.diff(mapped) > 0)
