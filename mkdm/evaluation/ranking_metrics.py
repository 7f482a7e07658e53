"""Metrics of ranked documents against graded judgments, equal to trec_eval's.

NDCG is that of Järvelin and Kekäläinen (2002) with the grade as gain and the discount log2(rank + 1), trec_eval's
ndcg_cut; MRR is recip_rank, MAP is map, recall@k is recall_k. Documents without a judgment have grade 0.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mkdm.errors import ConfigError

BATCH = 64
"""Resamples that are measured together."""
_NAME = re.compile(r"(ndcg|mrr|map|recall)(?:@([1-9]\d*))?")


@dataclass(frozen=True)
class RankingMetric:
    """A metric and the number of first documents that it looks at; None for all."""

    kind: str
    cutoff: int | None = None

    @classmethod
    def of(cls, name: str) -> "RankingMetric":
        """The metric of a name such as ndcg@10 or map.

        Raises:
            ConfigError: there is none of that name.
        """
        found = _NAME.fullmatch(name)
        if found is None or (found[1] == "recall" and found[2] is None):
            raise ConfigError(f"there is no metric {name!r}: give ndcg, mrr or map, each with @k or not, or recall@k")
        return cls(found[1], int(found[2]) if found[2] else None)

    def __str__(self) -> str:
        return self.kind if self.cutoff is None else f"{self.kind}@{self.cutoff}"


def ranking(scores: Mapping[str, float]) -> list[str]:
    """The documents of a query by falling score, those of one score by falling id, as trec_eval has them.

    Scores are compared as float32, in which trec_eval holds them.
    """
    return sorted(scores, key=lambda document: (np.float32(scores[document]), document.encode()), reverse=True)


def measure_ranking(
    ranked: Mapping[str, Sequence[str]],
    qrels: Mapping[str, Mapping[str, int]],
    metrics: Sequence[RankingMetric],
) -> tuple[list[str], NDArray[np.float64]]:
    """Measure each query that has both judgments and ranked documents, as trec_eval does without its -c.

    A query none of whose documents is relevant counts as 0.

    Args:
        ranked: by query, its documents, best first.
        qrels: by query and document, the grade; 1 and above is relevant.

    Returns:
        The q queries, and float64[q, metrics] in [0, 1]; their mean over queries is the figure of a run.
    """
    queries = [query for query in ranked if query in qrels]
    values = np.zeros((len(queries), len(metrics)))
    for row, query in enumerate(queries):
        judged = qrels[query]
        grades = np.array([max(0, judged.get(document, 0)) for document in ranked[query]], dtype=np.float64)
        ideal = np.sort(np.array([grade for grade in judged.values() if grade > 0], dtype=np.float64))[::-1]
        if len(ideal):
            values[row] = [_measure(metric, grades, ideal) for metric in metrics]
    return queries, values


def _measure(metric: RankingMetric, grades: NDArray[np.float64], ideal: NDArray[np.float64]) -> float:
    """Of one query: the grades of its ranked documents, and all its grades above 0, the greatest first."""
    first = grades[: metric.cutoff]
    places = np.flatnonzero(first) + 1  # ranks of relevant documents, from 1
    if metric.kind == "ndcg":
        return _gain(first) / _gain(ideal[: metric.cutoff])
    if metric.kind == "mrr":
        return 1 / float(places[0]) if len(places) else 0.0
    if metric.kind == "recall":
        return len(places) / len(ideal)
    return float((np.arange(1, len(places) + 1) / places).sum()) / len(ideal)


def _gain(grades: NDArray[np.float64]) -> float:
    return float((grades / np.log2(np.arange(2, len(grades) + 2))).sum())


def mean_intervals(values: NDArray[np.float64], resamples: int, seed: int) -> NDArray[np.float64]:
    """The 95 % intervals of the means over queries, by the bootstrap.

    Args:
        values: float64[q, metrics], as `measure_ranking` gives them.
        resamples: how many times the q queries are drawn.

    Returns:
        float64[2, metrics], the low ends and the high ends.
    """
    count, generator, means = len(values), np.random.default_rng(seed), []
    for start in range(0, resamples, BATCH):
        size = min(BATCH, resamples - start)
        draws = generator.multinomial(count, np.full(count, 1 / count), size=size)  # int64[size, q]
        means.append(draws @ values / count)
    return np.asarray(np.quantile(np.concatenate(means), (0.025, 0.975), axis=0))
