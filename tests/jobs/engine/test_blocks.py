"""From rows of pairs to blocks and back: nothing lost, each text once, none of them large."""

from collections import Counter

import pytest
from plans import physical_plan
from pyspark.sql import Row
from pyspark.sql import functions as F

from jobs.engine import blocks_of, keys_of, rows_of
from jobs.engine.blocks import keys_alone, rows_in_block
from jobs.engine.grouping import Hashed
from mkdm.columns import PAIR, PAIR_KEY
from udfs.scoring import BLOCK_PAIRS

PAIRS = "query_id string, passage_id string, query string, passage string"


def back(blocks) -> list[Row]:
    """The rows of blocks, with the texts that their pairs point at, or the reason why they are none."""

    def outcome(number, code, message):
        pair = F.get("pairs", number)
        return [
            F.get("queries", F.floor(pair / BLOCK_PAIRS).cast("int"))["query"].alias("query"),
            F.get("passages", pair % BLOCK_PAIRS)["passage"].alias("passage"),
            code.alias("code"),
        ]

    return rows_of(blocks, outcome).collect()


def test_every_row_comes_back_with_its_texts(spark, sample_pairs):
    good = [tuple(pair[name] for name in PAIR) for pair in sample_pairs]
    odd = [
        ("q", "null query", None, "a"),
        ("q", "null passage", "a", None),
        ("q", "b", "another text of the query", "b"),
        ("r", "b", "c", "another text of the passage"),
        ("s", "b", "c", "b"),
    ]
    unfit = [(None, "null key", "a", "b"), ("q", None, "a", "b"), good[0]]
    blocks = blocks_of(spark.createDataFrame(good + odd + unfit, PAIRS).repartition(5), Hashed(3)).cache()
    rows = back(blocks)
    assert Counter(tuple(row[name] for name in PAIR) for row in rows if row.code is None) == Counter(good + odd)
    assert sorted((row.code, row.query_id, row.passage_id) for row in rows if row.code and row.query_id) == [
        ("duplicate_key", *good[0][:2]),
        ("null_key", "q", None),
    ]
    assert Counter(map(tuple, keys_of(blocks).collect())) == Counter(row[:2] for row in good + odd + unfit)
    hashes = {(row.query_id, row.passage_id): row.content_hash for row in rows if row.code is None}
    frame = spark.createDataFrame(good + odd, PAIRS).select(*PAIR_KEY, F.xxhash64("query", "passage").alias("hash"))
    assert hashes == {tuple(row[:2]): row.hash for row in frame.collect()}
    for block in blocks.collect():
        assert len(set(block.queries)) == len(block.queries)
    blocks.unpersist()


@pytest.mark.parametrize("hot", ["passage", "query"])
def test_what_is_hot_makes_many_blocks_and_none_that_is_large(spark, hot):
    other, key = ("query", "passage") if hot == "passage" else ("passage", "query")
    ids = {f"{other}_id": F.col("id").cast("string"), f"{key}_id": F.lit("hot")}
    texts = {name: F.concat(F.lit("text "), f"{name}_id") for name in ("query", "passage")}
    blocks = blocks_of(spark.range(10_000).withColumns(ids).withColumns(texts).select(*PAIR), Hashed(1))
    shapes = blocks.select(
        rows_in_block().alias("rows"), F.size("queries" if hot == "query" else "passages").alias("n")
    )
    found = shapes.collect()
    assert sorted(row.rows for row in found) == [10_000 - 2 * BLOCK_PAIRS, BLOCK_PAIRS, BLOCK_PAIRS]
    assert {row.n for row in found} == {1}, "its text is in a block once"


def test_texts_of_passages_come_from_their_table_without_a_join(spark):
    passages = [(f"d{d}:x:{p}", f"text {d} {p}") for d in range(4) for p in range(3)] + [("alone", "text alone")]
    pairs = [(f"q{q}", name, f"query {q}", None) for q in range(5) for name, _ in passages if (q + len(name)) % 3]
    lost = ("q0", "d0:x:gone", "query 0", None)
    blocks = blocks_of(
        spark.createDataFrame([*pairs, lost], PAIRS),
        Hashed(2, chunks=2),
        passages=spark.createDataFrame(passages, "passage_id string, passage string"),
        by_document=True,
    )
    texts = dict(passages)
    rows = {(row.query_id, row.passage_id): (row.query, row.passage, row.code) for row in back(blocks)}
    assert rows == {(q, p): (query, texts.get(p), None) for q, p, query, _ in [*pairs, lost]}
    of_document: dict[str, set[int]] = {}
    for block in blocks.collect():
        for passage in block.passages:
            of_document.setdefault(passage.passage_id.rpartition(":")[0], set()).add((block.chunk, block.group))
    assert all(len(groups) == 1 for groups in of_document.values()), "a document is in one group"
    plan = physical_plan(blocks)
    assert "Join" not in plan
    assert plan.count("Exchange") == 1
    assert plan.count("Sort [") == 2, "by passage, most rows without their text; then by query"


def test_pairs_are_shuffled_once(spark, sample_pairs):
    blocks = blocks_of(spark.createDataFrame(sample_pairs, PAIRS), Hashed(4, chunks=3, parts=2))
    assert physical_plan(blocks).count("Exchange") == 1


def test_same_rows_make_the_same_blocks(spark, sample_pairs):
    pairs = spark.createDataFrame(sample_pairs, PAIRS)
    shuffled = pairs.repartition(7, "query").sortWithinPartitions(F.desc("passage_id"))
    one, other = (sorted(map(str, blocks_of(rows, Hashed(2)).collect())) for rows in (pairs, shuffled))
    assert one == other


def test_keys_alone_are_blocks_without_pairs(spark):
    keys = spark.createDataFrame([("q", "p"), (None, "r")], "query_id string, passage_id string")
    blocks = blocks_of(spark.createDataFrame([("a", "b", "c", "d")], PAIRS), Hashed(1)).unionByName(keys_alone(keys))
    assert Counter(map(tuple, keys_of(blocks).collect())) == Counter([("a", "b"), ("q", "p"), (None, "r")])
    assert [row.chunk for row in blocks.where("size(pairs) = 0").collect()] == [-1, -1]
