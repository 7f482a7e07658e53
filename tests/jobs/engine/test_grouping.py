"""Groups of pairs that were planned: even tasks whatever is hot, full blocks, and no shuffle of these."""

from collections import Counter

import numpy as np
import pytest
from plans import physical_plan
from pyspark.sql import functions as F

from jobs.engine import blocks_of, rows_of
from jobs.engine.blocks import rows_in_block
from jobs.engine.buckets import bucket_of, chunk_of, looked_up, owner_of
from jobs.engine.grouping import Hashed, Planned, Tasks, planned
from jobs.engine.packing import evenly, together
from mkdm.columns import PAIR_KEY
from udfs.scoring import BLOCK_PAIRS

SIZE = 100
"""Pairs of a block in these tests."""
PASSAGES = 8


def pairs_of(spark, documents: int, queries: int, hot: str | None = None):
    """Pairs of documents of a few passages, and beside them as many of what is hot."""
    number = F.col("id")
    rows = spark.range(documents * PASSAGES * queries)
    document, passage = F.floor(number / (PASSAGES * queries)), F.floor(number / queries) % PASSAGES
    rows = rows.select(
        F.concat_ws(":", F.concat(F.lit("d"), document), passage).alias("passage_id"),
        F.concat(F.lit("q"), number % queries, F.lit("of"), document).alias("query_id"),
    )
    if hot is not None:
        many = F.col("id").cast("string")
        fixed = {
            "document": ("hot:0", F.concat(F.lit("q"), F.floor(number / 200)), F.concat(F.lit("hot:"), number % 200)),
            "passage": ("hot:0", many, F.lit("hot:0")),
            "query": ("hot:0", F.lit("hot"), F.concat(F.lit("hot:"), many)),
            "both": ("hot:0", F.lit("hot"), F.lit("hot:0")),
        }[hot]
        more = spark.range(documents * PASSAGES * queries)
        if hot == "both":  # a passage with all queries, and a query with all passages, of one document
            side = number % 2 == 0
            one = F.when(side, F.lit("hot:0")).otherwise(F.concat(F.lit("hot:"), many))
            more = more.select(one.alias("passage_id"), F.when(side, many).otherwise(F.lit("hot")).alias("query_id"))
        else:
            more = more.select(fixed[2].alias("passage_id"), fixed[1].alias("query_id"))
        rows = rows.unionByName(more)
    return rows.withColumn("query", F.concat(F.lit("text of "), "query_id"))


def texts_of(pairs):
    return pairs.select("passage_id").distinct().withColumn("passage", F.concat(F.lit("text of "), "passage_id"))


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr("jobs.engine.grouping.BLOCK_PAIRS", SIZE)


@pytest.mark.parametrize("hot", [None, "document", "passage", "query", "both"])
def test_no_task_is_large_whatever_is_hot(spark, small_blocks, hot):
    pairs = pairs_of(spark, 25, 10, hot).cache()
    total = pairs.count()
    tasks = Tasks(2 * SIZE)
    grouping = planned(pairs, total, tasks, by_document=True)
    assert isinstance(grouping, Planned)
    assert grouping.tasks == len(grouping.loads) == tasks.number(total)
    blocks = blocks_of(pairs, grouping, texts_of(pairs), by_document=True)
    plan = physical_plan(blocks)
    assert plan.count("Exchange hashpartitioning(part") == 1
    assert plan.split("Exchange hashpartitioning(part")[0].count("Exchange") == 0, "none of the blocks themselves"
    found = blocks.withColumn("task", F.spark_partition_id()).withColumn("rows", rows_in_block()).cache()
    by_task = Counter()
    for row in found.select("task", "rows", "part").collect():
        by_task[row.task] += row["rows"]
    assert sum(by_task.values()) == total
    assert len(by_task) == grouping.tasks, "every task has its part, and no other"
    assert max(by_task.values()) <= 2 * tasks.rows
    rows = rows_of(found, lambda number, code, message: [code.alias("code"), number.alias("number")]).collect()
    assert Counter((row.query_id, row.passage_id) for row in rows) == Counter(
        map(tuple, pairs.select(*PAIR_KEY).collect())
    )
    lost = found.select(F.explode("passages.passage").alias("passage")).where("passage IS NULL")
    assert lost.isEmpty(), "a passage's text is in each piece that has pairs of it"
    assert (grouping.hot is not None) == (hot is not None)
    if hot in (None, "document"):
        spread = found.select("group", F.explode("passages.passage_id").alias("passage_id"))
        groups = spread.groupBy("passage_id").agg(F.count_distinct("group").alias("groups"))
        assert groups.where("groups > 1").isEmpty(), "a passage is in one group unless it is hot itself"
    for frame in (found, pairs):
        frame.unpersist()


def test_the_same_pairs_make_the_same_blocks_in_any_number_of_tasks(spark, small_blocks):
    pairs = pairs_of(spark, 20, 5, "document").withColumn("passage", F.lit("text"))
    total = pairs.count()
    tasks = {slots: planned(pairs, total, Tasks(8 * SIZE, slots), by_document=True) for slots in (1, 6, 10_000)}
    assert tasks[1].tasks == Tasks(8 * SIZE).number(total) < 6, "of the size that was asked for"
    assert tasks[6].tasks == 6, "one for each that runs at once"
    assert tasks[10_000].tasks >= total / (2 * SIZE), "but none without a block"
    drawn = [
        sorted(map(str, blocks_of(pairs.repartition(3), one, by_document=True).drop("part").collect()))
        for one in tasks.values()
    ]
    assert drawn[0] == drawn[1] == drawn[2]


def test_chunks_have_the_blocks_that_each_has_alone(spark, small_blocks):
    pairs = pairs_of(spark, 20, 5, "passage").withColumn("passage", F.lit("text")).cache()
    rows, tasks = pairs.count() / 3, Tasks(2 * SIZE)
    together = planned(pairs, rows, tasks, by_document=True, chunks=3)
    contents = ("queries", "passages", "pairs", "unfit")
    both = blocks_of(pairs, together, by_document=True).select("chunk", *contents, F.spark_partition_id().alias("task"))
    both = both.collect()
    assert {row.chunk for row in both} == {0, 1, 2}
    assert {row.task for row in both} == set(range(together.tasks))
    for chunk in range(3):
        mine = pairs.where(chunk_of(bucket_of(owner_of(True)), 3) == chunk)
        grouping = planned(mine, rows, tasks, by_document=True, chunks=3, only=chunk)
        alone = blocks_of(mine, grouping, by_document=True).select(*contents).collect()
        assert sorted(map(tuple, alone)) == sorted(tuple(row)[1:-1] for row in both if row.chunk == chunk)
    pairs.unpersist()


def test_few_pairs_are_one_block_and_are_not_counted(spark):
    pairs = pairs_of(spark, 1, 2).where(F.raise_error(F.lit("looked at")).isNull())
    assert planned(pairs, BLOCK_PAIRS, Tasks(BLOCK_PAIRS), by_document=True) == Hashed(1, only=0)


def test_things_are_put_together_to_full_groups_and_even_tasks():
    sizes = np.minimum(np.random.default_rng(0).lognormal(6, 1, 5000).astype(np.int64), 4096)
    sizes[::7] = 0
    group, filled = together(sizes, 4096)
    assert np.array_equal(np.bincount(group, sizes), filled)
    assert filled.max() <= 4096
    assert filled.mean() > 0.99 * 4096
    assert np.bincount(group[sizes == 0]).std() < 1, "those of no size too"
    task, loads = evenly(filled, 100)
    assert np.array_equal(np.bincount(task, filled[: len(task)]), loads)
    assert sorted(loads, reverse=True) == loads.tolist()
    assert loads.max() <= loads.mean() + 4096


def test_values_are_looked_up_by_their_place(spark):
    values = np.array([0, 7, 2**31 - 1, 10])
    rows = spark.range(4).select(looked_up(values, F.col("id")).alias("value"))
    assert [row["value"] for row in rows.collect()] == values.tolist()
    assert rows.schema["value"].dataType.typeName() == "integer"


@pytest.mark.classic
def test_what_is_looked_up_is_one_thing_to_a_task(spark):
    """Each task reads its plan anew: an array of many values would be as many objects."""
    rows = spark.range(4).select(looked_up(np.arange(1000), F.col("id")).alias("value"))
    plan = rows._jdf.queryExecution().optimizedPlan().toJSON()
    assert '"dataType":"binary"' in plan
    assert '"type":"array"' not in plan
