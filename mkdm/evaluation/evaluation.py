"""Evaluates scores against golden labels: metrics by group with bootstrap intervals, and a paired test of two models.

The bootstrap draws queries, since golden labels of one query are not independent (the cluster bootstrap: Davison and
Hinkley, Bootstrap Methods and their Application, 1997, section 3.8).
"""

import math
from dataclasses import asdict, dataclass
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_curve

from mkdm.evaluation.baselines import bm25, word_overlap
from mkdm.evaluation.resampled_metrics import BINS, Floats, Measure, bins, measures_of

METRICS = ("accuracy", "auc", "mrr@10", "ndcg@10", "ece", "brier")
MODEL, AGAINST, OVERLAP, BM25, DIFFERENCE = "model", "against", "word_overlap", "bm25", "difference"
ALL = "all"
"""The group of all pairs."""
LENGTH_BUCKETS = 5
ROC_POINTS = 400
"""Points of a ROC curve at most, which a plot of a page shows."""
ROUNDING = 1e-6
"""Differences below this are none: float32 scores of one model differ by so much from batch to batch."""
BATCH = 64
"""Resamples that are measured together."""


@dataclass(frozen=True)
class LabelledPairs:
    """n pairs with golden labels: arrays[n], of Python strings but for golden_labels int64[n], each 0 or 1.

    Attributes:
        groups: the group of each pair; all empty where there are no groups.
    """

    query_ids: NDArray[np.object_]
    passage_ids: NDArray[np.object_]
    queries: NDArray[np.object_]
    passages: NDArray[np.object_]
    golden_labels: NDArray[np.int64]
    groups: NDArray[np.object_]


@dataclass(frozen=True)
class Figure:
    """A metric of a scorer with its 95 % interval; NaN where it is not defined, such as the AUC of one class.

    Attributes:
        p_value: of a difference, two-sided; otherwise NaN.
    """

    scorer: str
    metric: str
    value: float
    low: float
    high: float
    p_value: float = math.nan


@dataclass(frozen=True)
class Group:
    """The figures of a group of pairs."""

    source: str
    pairs: int
    queries: int
    positives: int
    figures: tuple[Figure, ...]

    def figure(self, scorer: str, metric: str) -> Figure:
        """The one of that scorer and metric, or one of NaN."""
        found = [one for one in self.figures if (one.scorer, one.metric) == (scorer, metric)]
        return found[0] if found else Figure(scorer, metric, math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class Bin:
    """Pairs whose scores lie in one bin of the calibration curve.

    Attributes:
        positives: share of golden label 1 among them.
    """

    pairs: int
    score: float
    positives: float


@dataclass(frozen=True)
class Evaluation:
    """All that an evaluation found.

    Attributes:
        groups: all pairs first, then each group by name.
        lengths: groups of pairs of like length, as `from–to` words, shortest first.
        roc: by scorer, points (false positive rate, true positive rate); none where there is only one class.
        calibration: by scorer whose scores are probabilities, the bins that are not empty.
    """

    groups: tuple[Group, ...]
    lengths: tuple[Group, ...]
    roc: dict[str, list[tuple[float, float]]]
    calibration: dict[str, list[Bin]]

    def plain(self) -> dict[str, Any]:
        """The same as JSON has it: dicts and lists, null for NaN."""
        return {name: _plain(value) for name, value in asdict(self).items()}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def evaluate(pairs: LabelledPairs, scores: dict[str, Floats], resamples: int = 1000, seed: int = 0) -> Evaluation:
    """Measure one scorer or two, beside word overlap and BM25, on all pairs, by group and by length.

    Args:
        pairs: n pairs, at least one; no key twice.
        scores: under MODEL, and for a paired test under AGAINST too, float[n] in [0, 1].
        resamples: how many times the queries are drawn.
        seed: of the draws, not negative; a group's draws depend on its name and not on other groups.
    """
    texts = pairs.queries.tolist(), pairs.passages.tolist()
    known = {**scores, OVERLAP: word_overlap(*texts), BM25: bm25(*texts)}
    columns = {name: np.asarray(values, dtype=np.float64) for name, values in known.items()}
    words = np.array([len(query.split()) + len(passage.split()) for query, passage in zip(*texts, strict=True)])
    everything = np.ones(len(words), dtype=bool)
    chosen = {ALL: everything} | {name: pairs.groups == name for name in sorted(set(pairs.groups) - {""})}
    positives = pairs.golden_labels == 1
    has_both = 0 < positives.sum() < len(positives)
    return Evaluation(
        groups=tuple(_group(name, pairs, columns, rows, resamples, seed) for name, rows in chosen.items()),
        lengths=tuple(
            _group(name, pairs, {name: columns[name] for name in scores}, rows, resamples, seed)
            for name, rows in length_buckets(words).items()
        ),
        roc={name: roc_points(pairs.golden_labels, values) if has_both else [] for name, values in columns.items()},
        calibration={name: calibration(pairs.golden_labels, columns[name]) for name in scores},
    )


def _group(
    name: str, pairs: LabelledPairs, scores: dict[str, Floats], rows: NDArray[np.bool_], resamples: int, seed: int
) -> Group:
    golden_labels = pairs.golden_labels[rows]
    distinct, query = np.unique(pairs.query_ids[rows], return_inverse=True)
    _, passage = np.unique(pairs.passage_ids[rows], return_inverse=True)
    measures = {
        (scorer, metric): measure
        for scorer, values in scores.items()
        for metric, measure in measures_of(
            query, passage, golden_labels, values[rows], scorer in (MODEL, AGAINST)
        ).items()
    }
    once = {key: float(measure(np.ones((1, len(distinct))))[0]) for key, measure in measures.items()}
    drawn = bootstrap(measures, len(distinct), resamples, [seed, crc32(name.encode())])
    figures = [
        Figure(scorer, metric, once.get((scorer, metric), math.nan), *interval(drawn.get((scorer, metric))))
        for scorer in scores
        for metric in METRICS
    ]
    if AGAINST in scores:
        for metric in METRICS:
            value = once[MODEL, metric] - once[AGAINST, metric]
            difference = drawn[MODEL, metric] - drawn[AGAINST, metric]
            difference[np.abs(difference) < ROUNDING] = 0.0
            figures.append(Figure(DIFFERENCE, metric, value, *interval(difference), p_value(difference)))
    return Group(name, len(query), len(distinct), int(golden_labels.sum()), tuple(figures))


def bootstrap(
    measures: dict[tuple[str, str], Measure], queries: int, resamples: int, seed: list[int]
) -> dict[tuple[str, str], Floats]:
    """Every measure under the same resamples of the queries.

    Returns:
        float64[resamples] each; NaN in a resample in which it is not defined, and in all where there is only one query.
    """
    generator = np.random.default_rng(seed)
    found = {key: np.full(resamples, math.nan) for key in measures}
    for start in range(0, resamples if queries > 1 else 0, BATCH):
        size = min(BATCH, resamples - start)
        drawn = generator.integers(queries, size=(size, queries)) + queries * np.arange(size)[:, None]
        draws = np.bincount(drawn.ravel(), minlength=size * queries).reshape(size, queries).astype(np.float64)
        for key, measure in measures.items():
            found[key][start : start + size] = measure(draws)
    return found


def interval(resampled: Floats | None) -> tuple[float, float]:
    """The 95 % percentile interval; NaN where nothing is defined."""
    if resampled is None or np.isnan(resampled).all():
        return math.nan, math.nan
    low, high = np.nanpercentile(resampled, [2.5, 97.5])
    return float(low), float(high)


def p_value(differences: Floats) -> float:
    """Two-sided, from the share of resamples on the other side of no difference; with r of them it is at least 2/(r+1).

    See Davison and Hinkley 1997, chapter 4.
    """
    defined = differences[~np.isnan(differences)]
    if not len(defined):
        return math.nan
    side = min((defined <= 0).sum(), (defined >= 0).sum())
    return float(min(1.0, 2 * (1 + side) / (1 + len(defined))))


def calibration(golden_labels: NDArray[np.int64], scores: Floats) -> list[Bin]:
    """The bins of equal width that hold a pair, by rising score."""
    place = bins(scores)
    chosen = [place == number for number in range(BINS)]
    return [
        Bin(int(rows.sum()), float(scores[rows].mean()), float(golden_labels[rows].mean()))
        for rows in chosen
        if rows.any()
    ]


def roc_points(golden_labels: NDArray[np.int64], scores: Floats) -> list[tuple[float, float]]:
    """The ROC curve from (0, 0) to (1, 1), thinned to what a plot shows; needs both classes."""
    false, true, _ = roc_curve(golden_labels, scores)
    kept = np.unique(np.linspace(0, len(false) - 1, ROC_POINTS).astype(np.int64))
    return [(float(x), float(y)) for x, y in zip(false[kept], true[kept], strict=True)]


def length_buckets(words: NDArray[np.int64]) -> dict[str, NDArray[np.bool_]]:
    """Up to five parts of the pairs with like numbers of words and about as many pairs each, named `from–to`."""
    edges = np.unique(np.quantile(words, np.linspace(0, 1, LENGTH_BUCKETS + 1)[1:], method="higher"))
    place = np.searchsorted(edges, words)
    parts = [place == number for number in range(len(edges))]
    return {f"{words[rows].min()}–{words[rows].max()}": rows for rows in parts if rows.any()}
