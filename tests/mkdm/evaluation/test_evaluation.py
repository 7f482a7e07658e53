import json
import math

import ir_measures
import numpy as np
import pandas as pd
import pytest

from mkdm.evaluation.evaluation import (
    AGAINST,
    ALL,
    DIFFERENCE,
    METRICS,
    MODEL,
    LabelledPairs,
    bootstrap,
    calibration,
    evaluate,
    interval,
    length_buckets,
    p_value,
    roc_points,
)
from mkdm.evaluation.metrics import auc
from mkdm.evaluation.resampled_metrics import auc_measure, measures_of, ranking


def once(measure, queries: int) -> float:
    """A metric of the pairs as they are: each query drawn once."""
    return float(measure(np.ones((1, queries)))[0])


def made(queries: int = 60, passages: int = 5, seed: int = 1) -> LabelledPairs:
    """Queries with one golden passage each, in two groups."""
    generator = np.random.default_rng(seed)
    golden = np.zeros((queries, passages), dtype=np.int64)
    golden[np.arange(queries), generator.integers(passages, size=queries)] = 1
    ids = np.array([f"q{query}" for query in range(queries) for _ in range(passages)], dtype=object)
    return LabelledPairs(
        query_ids=ids,
        passage_ids=np.array([f"p{row}" for row in range(len(ids))], dtype=object),
        queries=np.array([f"what is {name}" for name in ids], dtype=object),
        passages=np.array([f"text {'word ' * (row % 7)}" for row in range(len(ids))], dtype=object),
        golden_labels=golden.ravel(),
        groups=np.array(["even" if int(name[1:]) % 2 == 0 else "odd" for name in ids], dtype=object),
    )


def noisy(pairs: LabelledPairs, signal: float, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=len(pairs.golden_labels))
    return 1 / (1 + np.exp(-(signal * (pairs.golden_labels - 0.5) + noise)))


def test_auc_with_ties_by_hand():
    golden, scores = np.array([1, 0, 1, 0, 0]), np.array([0.9, 0.9, 0.4, 0.4, 0.1])
    # 0.9 against 0.9, 0.4, 0.1: half, 1, 1; 0.4 against them: 0, half, 1
    assert once(auc_measure(np.arange(5), golden, scores), 5) == pytest.approx(4 / 6)
    assert auc(golden, scores) == pytest.approx(4 / 6)


def test_weighted_auc_is_that_of_repeated_rows():
    generator = np.random.default_rng(0)
    golden, scores = generator.integers(2, size=200), generator.integers(12, size=200) / 12
    query = np.sort(np.concatenate([np.arange(40), generator.integers(40, size=160)]))
    draws = generator.integers(4, size=(6, 40)).astype(float)
    expected = []
    for drawn in draws:
        repeats = drawn[query].astype(int)
        expected.append(auc(np.repeat(golden, repeats), np.repeat(scores, repeats)))
    assert auc_measure(query, golden, scores)(draws) == pytest.approx(np.array(expected))


def test_every_metric_under_draws_is_that_of_repeated_queries():
    pairs = made(queries=8)
    scores = noisy(pairs, 1.0, 2)
    query, passage = np.repeat(np.arange(8), 5), np.arange(40)
    drawn = np.array([2, 0, 1, 0, 3, 1, 0, 1])
    found = {
        name: float(measure(drawn[None].astype(float))[0])
        for name, measure in measures_of(query, passage, pairs.golden_labels, scores).items()
    }
    copies = [np.flatnonzero(query == name) for name in np.repeat(np.arange(8), drawn)]
    rows, renamed = np.concatenate(copies), np.repeat(np.arange(len(copies)), 5)
    repeated = measures_of(renamed, rows, pairs.golden_labels[rows], scores[rows])
    assert found == pytest.approx({name: once(measure, len(copies)) for name, measure in repeated.items()})
    assert found.keys() == set(METRICS)


def test_ranking_by_hand():
    # query 0: golden at ranks 2 and 3; query 1: none; query 2: tie, broken by passage: golden comes second
    query = np.array([0, 0, 0, 1, 2, 2])
    golden = np.array([1, 0, 1, 0, 1, 0])
    scores = np.array([0.2, 0.9, 0.3, 0.5, 0.7, 0.7])
    passage = np.array([0, 1, 2, 3, 5, 4])
    reciprocal, ndcg, answered = ranking(query, passage, golden, scores)
    assert reciprocal.tolist() == pytest.approx([1 / 2, 0, 1 / 2])
    second, third = 1 / math.log2(3), 1 / math.log2(4)
    assert ndcg.tolist() == pytest.approx([(second + third) / (1 + second), 0, second])
    assert answered.tolist() == [1, 0, 1]
    measures = measures_of(query, passage, golden, scores)
    assert once(measures["mrr@10"], 3) == pytest.approx(1 / 2), "the mean over the two queries that have an answer"


@pytest.mark.parametrize("steps", [4, 1000])
def test_ranking_is_that_of_ir_measures(steps):
    """pytrec_eval breaks ties by the id of a passage, falling, and ours by its place, rising: it gets the ranks."""
    generator = np.random.default_rng(steps)
    query = np.sort(np.concatenate([np.arange(60), generator.integers(60, size=1200)]))
    golden, passage = (generator.random(1260) < 0.1).astype(np.int64), generator.permutation(1260)
    scores = generator.integers(steps, size=1260) / steps
    place = np.empty(1260)
    place[np.lexsort((passage, -scores, query))] = np.arange(1260)
    ids = {"query_id": query.astype(str), "doc_id": passage.astype(str)}
    qrels = pd.DataFrame(ids | {"relevance": golden})
    found = {ir_measures.RR @ 10: np.zeros(60), ir_measures.nDCG @ 10: np.zeros(60)}
    for one in ir_measures.iter_calc(list(found), qrels, pd.DataFrame(ids | {"score": -place})):
        found[one.measure][int(one.query_id)] = one.value
    reciprocal, ndcg, answered = ranking(query, passage, golden, scores)
    assert 0 < answered.sum() < 60
    assert reciprocal == pytest.approx(found[ir_measures.RR @ 10])
    assert ndcg == pytest.approx(found[ir_measures.nDCG @ 10])


def test_only_the_first_ten_count():
    query, scores = np.zeros(12, dtype=np.int64), np.arange(12, 0, -1) / 12
    for place, expected in ((9, 1 / 10), (10, 0.0)):
        golden = (np.arange(12) == place).astype(np.int64)
        reciprocal, ndcg, _ = ranking(query, np.arange(12), golden, scores)
        assert reciprocal[0] == pytest.approx(expected)
        assert (ndcg[0] > 0) == (expected > 0)
    _, ndcg, _ = ranking(query, np.arange(12), np.ones(12, dtype=np.int64), scores)
    assert ndcg[0] == pytest.approx(1.0), "more golden passages than places"


def test_accuracy_and_calibration_by_hand():
    golden, scores = np.array([0, 1, 1, 0, 1]), np.array([0.05, 0.05, 0.72, 0.78, 1.0])
    measures = measures_of(np.arange(5), np.arange(5), golden, scores)
    # bins: {0.05, 0.05 | 0, 1}, {0.72, 0.78 | 1, 0}, {1.0 | 1}
    gaps = 2 * abs(0.05 - 0.5) + 2 * abs(0.75 - 0.5) + 0
    assert once(measures["ece"], 5) == pytest.approx(gaps / 5)
    assert once(measures["accuracy"], 5) == pytest.approx(3 / 5)
    assert once(measures["brier"], 5) == pytest.approx((0.05**2 + 0.95**2 + 0.28**2 + 0.78**2) / 5)
    bins = calibration(golden, scores)
    assert [(one.pairs, one.positives) for one in bins] == [(2, 0.5), (2, 0.5), (1, 1.0)]
    assert [one.score for one in bins] == pytest.approx([0.05, 0.75, 1.0])


def test_intervals_cover_and_are_seeded():
    pairs = made()
    scores = {MODEL: noisy(pairs, 1.5, 3)}
    first, same, other = (evaluate(pairs, scores, 200, seed) for seed in (0, 0, 1))
    assert json.dumps(first.plain()) == json.dumps(same.plain())
    assert json.dumps(first.plain()) != json.dumps(other.plain())
    assert [group.source for group in first.groups] == [ALL, "even", "odd"]
    assert [(group.pairs, group.queries, group.positives) for group in first.groups] == [
        (300, 60, 60),
        (150, 30, 30),
        (150, 30, 30),
    ]
    for group in first.groups:
        for metric in ("accuracy", "auc", "mrr@10", "ndcg@10", "brier"):
            figure = group.figure(MODEL, metric)
            assert figure.low < figure.value < figure.high
            assert math.isnan(figure.p_value)
        assert math.isnan(group.figure("bm25", "accuracy").value)
        assert not math.isnan(group.figure("word_overlap", "auc").value)
    everything, part = first.groups[0].figure(MODEL, "auc"), first.groups[1].figure(MODEL, "auc")
    assert everything.high - everything.low < part.high - part.low


def test_interval_covers_the_truth_as_often_as_it_says():
    """200 samples of 60 queries, whose pairs of one query are all alike: resampling pairs would be far too narrow."""
    generator = np.random.default_rng(0)
    covered = 0
    for sample in range(200):
        right = np.repeat(generator.random(60) < 0.7, 5)  # accuracy 0.7, whole queries at a time
        golden = np.tile([1, 0, 0, 0, 0], 60)
        scores = np.where(right, golden, 1 - golden).astype(float)
        query = np.repeat(np.arange(60), 5)
        measures = {(MODEL, "accuracy"): measures_of(query, np.arange(300), golden, scores)["accuracy"]}
        low, high = interval(bootstrap(measures, 60, 200, [sample])[MODEL, "accuracy"])
        covered += low <= 0.7 <= high
    assert 0.88 <= covered / 200 <= 0.99


def test_identical_models_do_not_differ():
    pairs = made()
    scores = noisy(pairs, 1.0, 4)
    evaluation = evaluate(pairs, {MODEL: scores, AGAINST: scores.copy()}, 100)
    for group in evaluation.groups:
        for metric in METRICS:
            figure = group.figure(DIFFERENCE, metric)
            assert (figure.value, figure.low, figure.high, figure.p_value) == (0, 0, 0, 1)


def test_rounding_of_float32_is_no_difference():
    pairs = made()
    scores = noisy(pairs, 1.0, 4).astype(np.float32).astype(float)
    figure = evaluate(pairs, {MODEL: scores, AGAINST: scores + 1e-7}, 100).groups[0].figure(DIFFERENCE, "brier")
    assert figure.value != 0
    assert (figure.low, figure.high, figure.p_value) == (0, 0, 1)


def test_a_better_model_is_told_from_a_worse_one():
    pairs = made(queries=150)
    better, worse = noisy(pairs, 3.0, 5), noisy(pairs, 0.5, 6)
    group = evaluate(pairs, {MODEL: better, AGAINST: worse}, 500).groups[0]
    for metric, sign in {"auc": 1, "ndcg@10": 1, "accuracy": 1, "brier": -1}.items():
        figure = group.figure(DIFFERENCE, metric)
        assert figure.value == pytest.approx(group.figure(MODEL, metric).value - group.figure(AGAINST, metric).value)
        assert sign * figure.low > 0
        assert sign * figure.high > 0
        assert figure.p_value == pytest.approx(2 / 501)


def test_p_values_of_equal_models_are_spread_evenly():
    """Two scorers of the same quality: p below 0.2 in about a fifth of the samples, and not in most."""
    small = []
    for seed in range(100):
        pairs = made(queries=40, seed=seed)
        query, passage = np.repeat(np.arange(40), 5), np.arange(200)
        measures = {
            (side, "auc"): measures_of(query, passage, pairs.golden_labels, noisy(pairs, 1.0, 1000 * number + seed))[
                "auc"
            ]
            for number, side in enumerate((MODEL, AGAINST), 1)
        }
        drawn = bootstrap(measures, 40, 200, [seed])
        small.append(p_value(drawn[MODEL, "auc"] - drawn[AGAINST, "auc"]) < 0.2)
    assert 0.08 <= np.mean(small) <= 0.35


@pytest.mark.parametrize("golden_label", [0, 1])
def test_one_class_alone_is_nan_and_null(golden_label):
    pairs = made(queries=6)
    alone = LabelledPairs(**(vars(pairs) | {"golden_labels": np.full(30, golden_label)}))
    scores = noisy(pairs, 1.0, 7)
    evaluation = evaluate(alone, {MODEL: scores, AGAINST: scores}, 20)
    group = evaluation.groups[0]
    assert math.isnan(group.figure(MODEL, "auc").value)
    assert math.isnan(group.figure(DIFFERENCE, "auc").p_value)
    assert math.isnan(group.figure(MODEL, "ndcg@10").value) == (golden_label == 0)
    assert not math.isnan(group.figure(MODEL, "accuracy").low)
    assert evaluation.roc[MODEL] == []
    json.dumps(evaluation.plain(), allow_nan=False)


def test_one_query_alone_has_no_interval():
    pairs = made(queries=1)
    figure = evaluate(pairs, {MODEL: noisy(pairs, 1.0, 8)}, 20).groups[0].figure(MODEL, "accuracy")
    assert not math.isnan(figure.value)
    assert math.isnan(figure.low)


def test_roc_goes_from_corner_to_corner():
    pairs = made(queries=400)
    points = roc_points(pairs.golden_labels, noisy(pairs, 1.0, 9))
    assert points[0] == (0, 0)
    assert points[-1] == (1, 1)
    assert len(points) <= 400


def test_lengths_are_cut_into_parts_of_like_size():
    words = np.arange(10, 110)
    buckets = length_buckets(words)
    assert list(buckets) == ["10–30", "31–50", "51–70", "71–90", "91–109"]
    assert np.sum(list(buckets.values()), axis=0).tolist() == [1] * 100
    assert list(length_buckets(np.full(9, 7))) == ["7–7"]
