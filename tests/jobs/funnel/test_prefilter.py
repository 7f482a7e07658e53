"""The prefilter in blocks: every score is that of the definition, and the best of a query stay, however it is cut."""

import math
from collections import Counter, defaultdict

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from pyspark.sql import functions as F
from tiny_models import SAMPLE

from jobs.engine import small_batches
from jobs.funnel import prefilter, selection
from jobs.funnel.config import BuildPairsConfig
from jobs.funnel.steps import transform
from mkdm.evaluation.baselines import bm25, word_overlap
from mkdm.text import words

ARROW = ["spark.sql.execution.arrow.maxRecordsPerBatch", "spark.sql.execution.arrow.maxBytesPerBatch"]
HOT = 150
"""Queries of the document d00."""


@pytest.fixture(scope="module")
def sample():
    """150 queries that share a document, and have others; some have no word, some none that a passage has."""
    rows = pq.read_table(SAMPLE / "pairs.parquet").to_pylist()
    texts = list(dict.fromkeys(row["passage"] for row in rows))[:300]
    texts[7] = texts[3]  # equal scores in one document
    passages = [(f"d{i // 12:02}:{i % 12}", f"d{i // 12:02}", i % 12, text, None, 1) for i, text in enumerate(texts)]
    queries = list(dict.fromkeys(row["query"] for row in rows))[: HOT - 3]
    queries += ["…", "zzyzx qwxyz", "zzyzx the the"]
    chosen = [
        (f"q{i:03}", query, doc_id, place)
        for i, query in enumerate(queries)
        for place, doc_id in enumerate(["d00", f"d{1 + i % 24:02}", f"d{1 + (i + 7) % 24:02}"], start=1)
    ]
    return chosen, passages


@pytest.fixture(scope="module")
def frames(spark, sample):
    chosen, passages = sample
    schema = "passage_id string, doc_id string, ordinal int, passage string, duplicate_of string, documents_sharing int"
    twin = F.when(F.col("passage_id") == "d00:7", "d00:3").alias("duplicate_of")  # a text counts once
    marked = spark.createDataFrame(passages, schema).withColumn("duplicate_of", twin)
    return (
        spark.createDataFrame(chosen, "query_id string, query string, doc_id string, place int").persist(),
        marked.persist(),
    )


@pytest.fixture(scope="module")
def defined(sample) -> dict[str, dict[tuple[str, str], float]]:
    """By kind and (query_id, passage_id), the score by definition, float64."""
    chosen, passages = sample
    distinct = {row[3]: Counter(words(row[3])) for row in passages}
    mean = sum(counts.total() for counts in distinct.values()) / len(distinct)
    frequency = Counter(word for counts in distinct.values() for word in counts)

    def of_bm25(query: str, passage: str) -> float:
        counts, total = distinct[passage], 0.0
        for word in dict.fromkeys(words(query)):
            weight = math.log(1 + (len(distinct) - frequency[word] + 0.5) / (frequency[word] + 0.5))
            total += weight * counts[word] / (counts[word] + 1.2 * (0.25 + 0.75 * counts.total() / mean))
        return total

    def of_overlap(query: str, passage: str) -> float:
        asked = set(words(query))
        return len(asked & set(distinct[passage])) / max(1, len(asked))

    pairs = [(one, passage) for one in chosen for passage in passages if passage[1] == one[2]]
    found = {
        kind: {(one[0], passage[0]): score(one[1], passage[3]) for one, passage in pairs}
        for kind, score in (("bm25", of_bm25), ("overlap", of_overlap))
    }
    texts = [one[1] for one, _ in pairs], [passage[3] for _, passage in pairs]
    np.testing.assert_allclose(list(found["overlap"].values()), word_overlap(*texts), rtol=1e-6)
    # its frequencies are those of the passages given, which are all of them
    np.testing.assert_allclose(list(found["bm25"].values()), bm25(*texts), rtol=1e-5)
    return found


def scored(frames, kind: str, slots: int = 2, most: int | None = None) -> list:
    chosen, passages = frames
    mean_length = 0.0
    if kind == "bm25":
        chosen, mean_length = prefilter.weighed(chosen, passages.where("duplicate_of IS NULL"))
    documents = selection.passages_by_document(passages, False, None, "passage")
    blocks = selection.blocks(chosen, documents, slots)
    return prefilter.likely_pairs(blocks, kind, mean_length, most, True).collect()


def test_a_near_hot_document_is_cut_into_blocks(spark, frames, monkeypatch):
    monkeypatch.setattr(selection, "QUERIES_PER_BLOCK", 30)
    monkeypatch.setattr(selection, "PAIRS_PER_BLOCK", 240)
    chosen, passages = frames
    documents = selection.passages_by_document(passages, False, None, "passage")
    blocks = selection.blocks(chosen, documents, 3).select("doc_id", F.size("_queries").alias("n")).collect()
    sizes = defaultdict(list)
    for row in blocks:
        sizes[row.doc_id].append(row.n)
    assert len(sizes) == 25
    assert sum(sizes["d00"]) == HOT
    assert 5 <= len(sizes["d00"]) <= math.ceil(HOT * 12 / 240)
    assert max(map(max, sizes.values())) < HOT / 2
    assert max(len(found) for doc_id, found in sizes.items() if doc_id != "d00") == 1


def test_a_worker_gets_few_blocks_at_once(spark):
    def sizes(batches):
        for batch in batches:
            yield pd.DataFrame({"rows": [len(batch)]})

    rows = spark.range(200, numPartitions=1).select(F.repeat(F.lit("x"), 10_000))
    before = {name: spark.conf.get(name) for name in ARROW}
    with small_batches(spark, None, 200_000):
        few = [row["rows"] for row in rows.mapInPandas(sizes, "rows int").collect()]
    assert sum(few) == 200
    assert max(few) <= 21
    assert {name: spark.conf.get(name) for name in ARROW} == before
    assert [row["rows"] for row in rows.mapInPandas(sizes, "rows int").collect()] == [200]


@pytest.mark.parametrize("kind", ["bm25", "overlap"])
def test_scores_are_those_of_the_definition(spark, frames, sample, defined, kind, monkeypatch):
    text = {passage[0]: passage[3] for passage in sample[1]}
    whole = scored(frames, kind)
    found = {(row.query_id, row.passage_id): row.score for row in whole}
    assert len(found) == len(whole)
    assert found == pytest.approx(defined[kind], rel=0, abs=1e-9)
    assert all(row.passage == text[row.passage_id] for row in whole)
    assert not any(found[query_id, pair] for query_id, pair in found if query_id in ("q147", "q148"))
    assert any(found[query_id, pair] for query_id, pair in found if query_id == "q149")
    monkeypatch.setattr(selection, "QUERIES_PER_BLOCK", 7)
    with small_batches(spark, None, 20_000):
        again = {(row.query_id, row.passage_id): row.score for row in scored(frames, kind, slots=5)}
    assert again == found, "to the last bit, however the blocks are cut"
    best = defaultdict(list)
    for row in whole:
        best[row.query_id, row.place].append((-row.score, row.ordinal, row.passage_id))
    kept = {(query_id, one[2]) for (query_id, _), group in best.items() for one in sorted(group)[:4]}
    few = scored(frames, kind, most=4)
    assert len(few) == len(kept)
    assert {(row.query_id, row.passage_id) for row in few} == kept, "the best of a document, the first of equal ones"


@pytest.mark.parametrize(
    ("kind", "limits"),
    [("bm25", {"passages_per_query": 9, "passages_per_document": 4}), ("overlap", {"passages_per_query": 5})],
)
def test_the_best_passages_of_a_query_become_pairs(frames, kind, limits, monkeypatch):
    groups = defaultdict(lambda: defaultdict(list))
    for row in scored(frames, kind):
        groups[row.query_id][row.place].append((-row.score, row.place, row.ordinal, row.passage_id))
    expected = []
    for query_id, places in groups.items():
        left = [one for place in places.values() for one in sorted(place)[: limits.get("passages_per_document")]]
        expected += [(query_id, one[3]) for one in sorted(left)[: limits["passages_per_query"]]]
    config = BuildPairsConfig(tokenizer="none", prefilter=kind, **limits)
    made = [transform(*frames, config, 5_400, 2).collect()]
    monkeypatch.setattr(selection, "PAIRS_PER_BLOCK", 100)
    made.append(transform(*frames, config, 5_400, 5).collect())
    for rows in made:
        assert sorted((row.query_id, row.passage_id) for row in rows) == sorted(expected)


def test_copies_that_are_merged_leave_room_for_others(frames):
    config = BuildPairsConfig(tokenizer="none", prefilter="overlap", passages_per_query=2, duplicates="merge")
    scores = scored(frames, "overlap")
    copies = {row.query_id: row.score for row in scores if row.passage_id == "d00:3"}
    best = {query_id: max(row.score for row in scores if row.query_id == query_id) for query_id in copies}
    assert any(best[query_id] == score > 0 for query_id, score in copies.items()), "the copies are some query's best"
    rows = transform(*frames, config, 5_400, 2).collect()
    assert Counter(Counter(row.query_id for row in rows).values()) == {2: HOT}
    assert not any(row.passage_id == "d00:7" for row in rows)
