"""From a student's scores to those of a teacher: a map that rises, fitted on the pairs that both have scored."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pyspark.sql import Column
from pyspark.sql import functions as F

KNOTS = 32
"""Knots of a map at most, besides its ends: it is kept with each commit, and evaluated in each row."""
DIGITS = 9
"""Decimals of a knot, which is more than a float32 has."""


@dataclass(frozen=True)
class Calibration:
    """A map of [0, 1] onto itself by straight lines between knots: a higher score stays higher.

    Attributes:
        student: scores of the student at the knots, rising from 0 to 1.
        teacher: what the teacher gave to such pairs on average, rising from 0 to 1.
    """

    student: tuple[float, ...] = (0.0, 1.0)
    teacher: tuple[float, ...] = (0.0, 1.0)

    @classmethod
    def fit(cls, student: NDArray[np.float32], teacher: NDArray[np.float32]) -> Self:
        """The isotonic regression of the teacher's scores on the student's, made one to one.

        Pool-adjacent-violators gives steps, on which different scores would become equal. So each step becomes one
        knot, at its mean, and lines lead from knot to knot: centered isotonic regression (Oron and Flournoy, 2017),
        here with the ends (0, 0) and (1, 1).

        Args:
            student, teacher: float32[n], scores of the same pairs, in [0, 1].
        """
        from sklearn.isotonic import IsotonicRegression  # takes a second to import

        if not len(student):
            return cls()
        order = np.lexsort((teacher, student))  # whatever order the rows come in, the sums are the same
        x, y = (np.asarray(scores, dtype=np.float64)[order] for scores in (student, teacher))
        steps = IsotonicRegression(y_min=0, y_max=1).fit(x, y).predict(x)
        _, step = np.unique(np.round(steps, DIGITS), return_inverse=True)
        step = _pooled(step, KNOTS)
        pairs = np.bincount(step)
        at, value = (np.round(np.bincount(step, each) / pairs, DIGITS) for each in (x, y))
        new = np.diff(at, prepend=-1.0) > 0
        at, value = at[new].clip(0, 1), np.maximum.accumulate(value[new]).clip(0, 1)
        first, last = at[0] > 0, at[-1] < 1
        return cls(
            (*[0.0] * first, *at.tolist(), *[1.0] * last),
            (*[0.0] * first, *value.tolist(), *[1.0] * last),
        )

    def at(self, scores: NDArray[np.float32]) -> NDArray[np.float64]:
        """float64[n]: what the teacher would give on average to pairs with these scores of the student."""
        return np.interp(scores, self.student, self.teacher)

    def column(self, score: Column) -> Column:
        """The same of a column, as a double."""
        given = score.cast("double")
        result: Column | None = None
        for (x0, x1), (y0, y1) in zip(pairwise(self.student), pairwise(self.teacher), strict=True):
            here = F.lit(y0) + (given - F.lit(x0)) * F.lit((y1 - y0) / (x1 - x0))
            below = F.least(F.lit(y1), here)  # rounding must not pass the next line's begin
            result = F.when(given <= x1, below) if result is None else result.when(given <= x1, below)
        assert result is not None
        return result.otherwise(F.lit(self.teacher[-1]))


def _pooled(step: NDArray[np.intp], most: int) -> NDArray[np.intp]:
    """The steps, numbered anew; where they are too many, neighbours together, with about as many pairs in each."""
    if step[-1] < most:
        return step
    first = np.searchsorted(step, step)  # where a pair's step begins
    pooled: NDArray[np.intp] = np.unique(first * most // len(step), return_inverse=True)[1]
    return pooled
