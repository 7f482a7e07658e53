"""The ranking itself: its order, how many rows, and that few of them are shuffled."""

import random

import pytest
from plans import physical_plan

from jobs.engine import Table
from jobs.rank import RankConfig, run, transform
from jobs.score import ScoreConfig
from jobs.score import run as score
from mkdm.errors import RunFailedError

SCORES = "query_id string, passage_id string, score float, model_version string, run_id string"


def rows_of(queries: dict[str, int]) -> list[tuple[str, str, float, str, str]]:
    """Scores of so many passages of each query, many of them equal, in no order."""
    chosen = random.Random(5)
    rows = [
        (query, f"d:{number:04d}", chosen.randrange(50) / 50, "m", f"run.{number % 2}")
        for query, passages in queries.items()
        for number in range(passages)
    ]
    return chosen.sample(rows, len(rows))


@pytest.mark.parametrize("top_k", [1, 10, 1500])
@pytest.mark.parametrize("partitions", [1, 7])
def test_the_best_of_each_query_and_no_more(spark, top_k, partitions):
    """As sorted by hand; more queries than an aggregate keeps before it sorts, and more than 1,000 passages."""
    rows = rows_of({"q": 1600, "q0": 1, **{f"q{number}": number % 30 for number in range(1, 200)}})
    found = transform(spark.createDataFrame(rows, SCORES).repartition(partitions), top_k).collect()
    expected = []
    for query in {row[0] for row in rows}:
        mine = sorted((row for row in rows if row[0] == query), key=lambda row: (-row[2], row[1]))[:top_k]
        expected += [(query, rank, row[1], *row[3:]) for rank, row in enumerate(mine, 1)]
    assert sorted((row.query_id, row.rank, row.passage_id, row.model_version, row.run_id) for row in found) == sorted(
        expected
    )
    by_key = {row[:2]: row[2] for row in rows}
    assert all(row.score == pytest.approx(by_key[row.query_id, row.passage_id]) for row in found)


@pytest.mark.parametrize("top_k", [10, 5000])
def test_a_task_shuffles_at_most_k_rows_of_a_query(spark, warehouse, top_k):
    """One exchange, with the limit below it and no sort of the scores."""
    scores = warehouse.table("scores").read()
    plan = physical_plan(transform(scores, top_k))
    assert plan.count("Exchange") == 1
    below = plan.split("Exchange")[1]
    assert "partial_collect_top_k" in below
    assert f" {top_k}, true" in below
    assert "merge_collect" not in below
    assert "Sort" not in plan


def test_rows_that_are_missing_are_told(spark, warehouse, student_folder, monkeypatch):
    warehouse.table("pairs").overwrite(warehouse.table("pairs").read().limit(40))
    score(spark, ScoreConfig(model=student_folder, warehouse=warehouse.root, precision="fp32"))
    whole = Table.overwrite
    monkeypatch.setattr(Table, "overwrite", lambda table, rows, **more: whole(table, rows.limit(39), **more))
    with pytest.raises(RunFailedError, match=r"version 1 of .*ranked_passages has 39 rows, not 40"):
        run(spark, RankConfig(warehouse=warehouse.root))
