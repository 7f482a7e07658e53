"""Metrics of rankings, held against trec_eval itself (through pytrec_eval) and against values worked by hand."""

import math
import random

import numpy as np
import pytest
import pytrec_eval

from mkdm.errors import ConfigError
from mkdm.evaluation.ranking_metrics import RankingMetric, mean_intervals, measure_ranking, ranking

NAMES = {
    "ndcg": "ndcg",
    "ndcg@1": "ndcg_cut_1",
    "ndcg@10": "ndcg_cut_10",
    "mrr": "recip_rank",
    "map": "map",
    "map@5": "map_cut_5",
    "recall@5": "recall_5",
    "recall@100": "recall_100",
}
"""Ours, and trec_eval's."""


def measured(run, qrels, *names):
    ranked = {query: ranking(scores) for query, scores in run.items()}
    queries, values = measure_ranking(ranked, qrels, [RankingMetric.of(name) for name in names])
    return {query: dict(zip(names, map(float, row), strict=True)) for query, row in zip(queries, values, strict=True)}


def test_values_worked_by_hand():
    """Ranked d, c, b, a by falling score, c before b by falling id; grades 0, 3, unjudged, 1; x is not ranked."""
    qrels = {"q": {"a": 1, "c": 3, "d": 0, "x": 2}}
    run = {"q": {"a": 0.1, "b": 0.5, "c": 0.5, "d": 0.9}}
    found = measured(run, qrels, "ndcg@10", "ndcg@2", "mrr", "mrr@1", "map", "recall@2", "recall@10")["q"]
    assert found["ndcg@10"] == pytest.approx(
        (3 / math.log2(3) + 1 / math.log2(5)) / (3 + 2 / math.log2(3) + 1 / math.log2(4))
    )
    assert found["ndcg@2"] == pytest.approx((3 / math.log2(3)) / (3 + 2 / math.log2(3)))
    assert (found["mrr"], found["mrr@1"]) == (0.5, 0)
    assert found["map"] == pytest.approx((1 / 2 + 2 / 4) / 3)
    assert (found["recall@2"], found["recall@10"]) == (pytest.approx(1 / 3), pytest.approx(2 / 3))


def test_metrics_are_those_of_trec_eval():
    """Grades from -1 to 3, unjudged documents, ties, scores alike in float32, and queries without a relevant one."""
    draw = random.Random(7)
    qrels, run = {}, {}
    for number in range(200):
        documents = [f"d{name}é" if name % 7 == 0 else f"d{name}" for name in draw.sample(range(1000), 40)]
        top = 0 if number % 10 == 0 else 3
        qrels[f"q{number}"] = {name: draw.randint(-1, top) for name in documents[: draw.randint(1, 30)]}
        close = [0.5, 0.5 + 1e-10, 0.5 - 1e-4, draw.random()]
        ranked = draw.sample(documents, draw.randint(1, 40))
        run[f"q{number}"] = {name: draw.choice(close) * draw.choice((1, -3)) for name in ranked}
    run["unjudged"] = {"d1": 1.0}
    qrels["unranked"] = {"d1": 1}
    theirs = pytrec_eval.RelevanceEvaluator(
        qrels, {"ndcg", "ndcg_cut.1,10", "recip_rank", "map", "map_cut.5", "recall.5,100"}
    ).evaluate(run)
    ours = measured(run, qrels, *NAMES)
    assert ours.keys() == theirs.keys()
    assert len(ours) == 200
    for query, found in ours.items():
        assert found == pytest.approx({ours: theirs[query][name] for ours, name in NAMES.items()}, abs=1e-12), query


def test_mrr_at_k_is_trec_evals_where_the_first_k_hold_it():
    qrels, run = {"a": {"x": 1}, "b": {"x": 1}}, {"a": {"x": 1.0, "y": 2.0}, "b": {"w": 3.0, "y": 2.0, "x": 1.0}}
    assert measured(run, qrels, "mrr@2") == {"a": {"mrr@2": 0.5}, "b": {"mrr@2": 0.0}}


@pytest.mark.parametrize("name", ["recall", "ndcg@0", "p@5", "", "map@"])
def test_no_such_metric(name):
    with pytest.raises(ConfigError, match="there is no metric"):
        RankingMetric.of(name)


def test_intervals_of_means():
    values = np.random.default_rng(1).random((400, 2))
    low, high = mean_intervals(values, 2000, 3)
    error = 1.96 * values.std(axis=0) / 20
    assert low == pytest.approx(values.mean(axis=0) - error, abs=0.003)
    assert high == pytest.approx(values.mean(axis=0) + error, abs=0.003)
