"""How far the scores of a run lie from those of another: two figures, of counts by fine bins of [0, 1].

PSI, the population stability index, is sum over bins of (now - before) ln(now / before), here over ten bins that each
hold a tenth of the earlier scores. It is a symmetrised Kullback-Leibler divergence (Yurdakul and Naranjo, "Statistical
Properties of the Population Stability Index", Journal of Risk Model Validation 14(4), 2020). Below 0.1 is commonly read
as stable and above 0.25 as a shift (Siddiqi, "Credit Risk Scorecards", Wiley 2006).

KS is the two-sample Kolmogorov-Smirnov distance, the widest gap between the two distribution functions (Smirnov,
"Table for Estimating the Goodness of Fit of Empirical Distributions", Annals of Mathematical Statistics 19(2), 1948).
From counts by bin it is exact at the edges of the bins, and so never too large. It comes without a p value: at billions
of scores any difference is significant.
"""

import math
from collections.abc import Sequence

PARTS = 10
STABLE, SHIFTED = 0.1, 0.25


def psi(before: Sequence[int], now: Sequence[int]) -> float:
    """The population stability index of counts by the same fine bins; NaN where either has none.

    Half a score is added to each part, so that an empty one does not make it infinite.
    """
    parts = _parts(before)
    if not sum(before) or not sum(now):
        return math.nan
    there, here = _shares(before, parts), _shares(now, parts)
    return sum((new - old) * math.log(new / old) for old, new in zip(there, here, strict=True))


def ks(before: Sequence[int], now: Sequence[int]) -> float:
    """The Kolmogorov-Smirnov distance, 0 to 1, of counts by the same fine bins; NaN where either has none."""
    if not sum(before) or not sum(now):
        return math.nan
    gap = below_before = below_now = 0.0
    for one, other in zip(before, now, strict=True):
        below_before += one / sum(before)
        below_now += other / sum(now)
        gap = max(gap, abs(below_before - below_now))
    return gap


def reading(value: float) -> str:
    """What a PSI is commonly read as."""
    if math.isnan(value):
        return "not defined"
    return "stable" if value < STABLE else "a shift" if value > SHIFTED else "some shift"


def _shares(counts: Sequence[int], parts: Sequence[int]) -> list[float]:
    sums = [0.5] * (max(parts) + 1)
    for part, count in zip(parts, counts, strict=True):
        sums[part] += count
    return [one / sum(sums) for one in sums]


def _parts(counts: Sequence[int]) -> list[int]:
    """For each fine bin the part it belongs to; a part ends with the bin that fills its tenth."""
    parts, part, seen, total = [], 0, 0, sum(counts)
    for count in counts:
        parts.append(part)
        seen += count
        if total and seen * PARTS >= total * (part + 1) and seen < total:
            part = seen * PARTS // total
    return [sorted(set(parts)).index(one) for one in parts]
