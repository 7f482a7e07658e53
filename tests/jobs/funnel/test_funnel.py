"""The funnel's parts: faults told, queries merged and segmented, documents chosen, passages ordered, duplicates."""

import random
from collections import Counter, defaultdict

import numpy as np
import pyarrow.parquet as pq
import pytest
from pyspark.sql import functions as F
from tiny_models import SAMPLE

from jobs.engine import Table
from jobs.funnel import inputs, selection
from jobs.funnel.config import BuildPairsConfig
from jobs.funnel.inputs import read_input
from jobs.funnel.near_duplicates import near_duplicates
from jobs.funnel.passages import coded_documents, cut, exact_duplicates, uncut, with_duplicates
from jobs.funnel.queries import merged, normalised, with_segments
from jobs.funnel.steps import transform
from mkdm.errors import InputError
from mkdm.evaluation.baselines import bm25, word_overlap
from udfs.passages import cut_settings

QUERIES = "query_id string, query string, frequency double"
PASSAGES = "passage_id string, doc_id string, ordinal int, passage string, duplicate_of string, documents_sharing int"


def codes(coded, key: str) -> Counter:
    """How many rows have which key and error_code."""
    return Counter((row[key], row["error_code"]) for row in coded.collect())


def test_every_query_is_kept_or_has_a_reason(spark):
    rows = [
        ("a", "What is  this", 3.0),
        ("a", "What is  this", 3.0),
        ("b", None, 1.0),
        ("c", " \u2003\t", 1.0),
        (None, "x", 1.0),
        (None, "y", 1.0),
        ("d", "negative", -1.0),
        ("e", "not a number", float("nan")),
        ("f", "unknown", None),
        ("g", "first is at fault", -1.0),
        ("g", "second is not", 1.0),
        ("i", "\u200b\u200e\ufeff", 1.0),
        ("j", "long " * 401, 1.0),
    ]
    frame = spark.createDataFrame(rows, QUERIES)
    bad = frame.limit(1).select(
        F.lit("h").alias("query_id"), F.expr("CAST(X'61FF' AS STRING)").alias("query"), F.lit(1.0).alias("frequency")
    )
    coded = normalised(frame.unionByName(bad))
    assert codes(coded, "query_id") == Counter(
        {
            ("a", None): 1,
            ("a", "duplicate_key"): 1,
            ("b", "null_query"): 1,
            ("c", "empty_query"): 1,
            (None, "null_key"): 2,
            ("d", "invalid_frequency"): 1,
            ("e", "invalid_frequency"): 1,
            ("f", None): 1,
            ("g", "invalid_frequency"): 1,
            ("g", None): 1,
            ("h", "invalid_text"): 1,
            ("i", "empty_query"): 1,
            ("j", "query_too_long"): 1,
        }
    )
    told = {row.error_code: row.error_message for row in coded.where("error_code IS NOT NULL").collect()}
    assert told["query_too_long"] == "query has 2,005 characters, more than --max-query-characters 2,000"
    assert told["duplicate_key"] == "another row of queries has the same query_id"
    assert {row.query for row in coded.where("error_code IS NULL").collect()} == {
        "what is this",
        "unknown",
        "second is not",
    }


def test_queries_of_one_text_are_one_and_their_frequencies_add_up(spark):
    rows = [("b", "A  Gasket", 2.0), ("a", "ａ gasket", 3.0), ("c", "a gasket", None), ("d", "none", None)]
    together = merged(normalised(spark.createDataFrame(rows, QUERIES)))
    assert {
        (row.query_id, row.query, row.frequency, tuple(sorted(row.raw_query_ids))) for row in together.collect()
    } == {
        ("a", "a gasket", 5.0, ("a", "b", "c")),
        ("d", "none", None, ("d",)),
    }


def segments_by_hand(frequencies: list[float | None], head: float, body: float) -> list[str]:
    counts = [frequency or 0.0 for frequency in frequencies]
    total = sum(counts)
    found = []
    for count in counts:
        above = sum(other for other in counts if other > count)
        share = above / total if total else 0.0
        found.append(
            "all" if not total else "tail" if not count or share >= head + body else "head" if share < head else "body"
        )
    return found


@pytest.mark.parametrize(
    "frequencies",
    [
        [100.0, 50.0, 25.0, 10.0, 10.0, 5.0, 1.0, 1.0, 1.0, None, 0.0],
        [1.0] * 7,
        [None] * 3,
        [0.0, 0.0],
        [random.Random(3).paretovariate(1.1) // 1 for _ in range(200)],
    ],
)
def test_segments_by_cumulative_impressions(spark, frequencies):
    rows = [(f"q{i:03}", f"text {i}", frequency) for i, frequency in enumerate(frequencies)]
    found = with_segments(spark.createDataFrame(rows, QUERIES), 0.2, 0.6).orderBy("query_id").collect()
    assert [row.segment for row in found] == segments_by_hand(frequencies, 0.2, 0.6)


def test_every_document_is_cut_or_has_a_reason(spark, student_folder):
    settings = cut_settings(spark, student_folder, 32, 0)
    rows = [
        ("a", "A gasket is a seal."),
        ("b", "<p>A <b>gasket</b> is a seal.</p>"),
        ("c", None),
        ("d", " \n"),
        ("e", "one"),
        ("e", "two"),
        (None, "x"),
        ("f", "<br>"),
        ("g", "\u200b\u00ad\ufeff"),
        ("h", "<i>" + "x" * 100_000),
    ]
    frame = spark.createDataFrame(rows, "doc_id string, text string")
    for html, of_b, of_f in (("keep", None, None), ("strip", None, "empty_text"), ("reject", "html_text", "html_text")):
        found = codes(coded_documents(frame, html, settings, most=100_000), "doc_id")
        assert found == Counter(
            {
                ("a", None): 1,
                ("b", of_b): 1,
                ("c", "null_text"): 1,
                ("d", "empty_text"): 1,
                ("e", None): 1,
                ("e", "duplicate_key"): 1,
                (None, "null_key"): 1,
                ("f", of_f): 1,
                ("g", "empty_text"): 1,
                ("h", "text_too_long"): 1,
            }
        ), html
    coded = coded_documents(frame, "strip", settings, most=100_000)
    existing = spark.createDataFrame([], f"{PASSAGES}, cut_hash long")
    passages = cut(coded, existing, settings).persist()
    assert {row.doc_id: row.passage for row in passages.where("doc_id != 'e'").collect()} == dict.fromkeys(
        "ab", "A gasket is a seal."
    )
    assert passages.where("NOT cut_now").isEmpty()
    stored = with_duplicates(passages, exact_duplicates(passages), None)
    assert {row.passage_id.split(":")[0]: row.duplicate_of for row in stored.where("doc_id != 'e'").collect()} == {
        "a": None,
        "b": next(row.passage_id for row in stored.collect() if row.doc_id == "a"),
    }
    again = cut(coded, stored, settings)
    assert again.where("cut_now").isEmpty(), "nothing changed"
    assert {row.passage_id for row in again.collect()} == {row.passage_id for row in stored.collect()}
    other = cut_settings(spark, student_folder, 16, 0)
    assert cut(coded_documents(frame, "strip", other), stored, other).where("NOT cut_now").isEmpty()


def test_a_document_that_the_cutter_cannot_take_is_told(spark, student_folder, monkeypatch):
    settings = cut_settings(spark, student_folder, 32, 0)
    nothing_left = "\u200b"  # the splitter may see no passage in it, and we see nothing at all
    frame = spark.createDataFrame([("a", nothing_left), ("b", "A gasket.")], "doc_id string, text string")
    coded = coded_documents(frame, "keep", settings)
    rows = cut(coded, spark.createDataFrame([], f"{PASSAGES}, cut_hash long"), settings)
    told = {row.doc_id for row in coded.where("error_code = 'empty_text'").collect()}
    assert told == {"a"}
    assert {row.doc_id for row in rows.collect()} | told == {"a", "b"}, "no document is lost"
    assert uncut(rows).where("error_code != 'cutter_error'").isEmpty()


def test_every_query_document_is_kept_or_has_a_reason(spark):
    rows = [
        ("q1", "d1", 1.0),
        ("q1", "d1", 2.0),
        ("q2", "d1", -1.0),
        ("q2", "d2", None),
        ("q9", "d1", 1.0),
        ("q1", "d9", 1.0),
        (None, "d1", 1.0),
        ("q1", None, 1.0),
        ("q2", "d1", 0.0),
    ]
    frame = spark.createDataFrame(rows, "query_id string, doc_id string, doc_rank double")
    query_map = spark.createDataFrame([("q1", "q1"), ("q2", "q1")], "raw_query_id string, query_id string")
    documents = spark.createDataFrame([("d1",), ("d2",)], "doc_id string")
    coded = selection.coded_query_documents(frame, query_map, documents)
    assert Counter(row.error_code for row in coded.collect()) == Counter(
        {None: 2, "duplicate_key": 1, "invalid_rank": 2, "unknown_query": 1, "unknown_document": 1, "null_key": 2}
    )
    queries = spark.createDataFrame([("q1", "text")], "query_id string, query string")
    ranked = selection.ranked_documents(coded.where("error_code IS NULL"), queries, 10).collect()
    assert [(row.query_id, row.doc_id, row.doc_rank, row.place, row.chosen) for row in ranked] == [
        ("q1", "d1", 0.0, 1, True)
    ]


@pytest.fixture(scope="module")
def sample(spark):
    """60 queries and 40 documents of real passages; every query has 5 documents."""
    rows = pq.read_table(SAMPLE / "pairs.parquet").to_pylist()
    texts = list(dict.fromkeys(row["passage"] for row in rows))[:400]
    queries = list(dict.fromkeys(row["query"] for row in rows))[:60]
    passages = [(f"d{i // 10:02}:{i % 10}", f"d{i // 10:02}", i % 10, text, None, 1) for i, text in enumerate(texts)]
    chosen = [
        (f"q{i:02}", query, f"d{(i * 7 + place * 11) % 40:02}", float(place), place)
        for i, query in enumerate(queries)
        for place in range(1, 6)
    ]
    schema = "query_id string, query string, doc_id string, doc_rank double, place int"
    return spark.createDataFrame(chosen, schema).persist(), spark.createDataFrame(passages, PASSAGES).persist()


def pairs_made(sample, **changes) -> list[tuple[str, str]]:
    chosen, passages = sample
    config = BuildPairsConfig(**({"tokenizer": "none"} | changes))
    rows = transform(chosen, passages, config, chosen.count() * 10, 2).collect()
    return sorted((row.query_id, row.passage_id) for row in rows)


@pytest.mark.parametrize("prefilter", ["none", "bm25", "overlap"])
def test_limits_by_document_and_by_query(sample, prefilter):
    chosen, passages = (frame.collect() for frame in sample)
    of_document = {doc: [row for row in passages if row.doc_id == doc] for doc in {row.doc_id for row in passages}}
    all_pairs = [(one, passage) for one in chosen for passage in of_document[one.doc_id]]
    score = {"bm25": bm25, "overlap": word_overlap, "none": lambda queries, _: np.zeros(len(queries))}[prefilter]
    scores = score([one.query for one, _ in all_pairs], [passage.passage for _, passage in all_pairs])

    def check(made, group_of, most):
        groups = defaultdict(list)
        for (one, passage), value in zip(all_pairs, scores.tolist(), strict=True):
            groups[group_of(one)].append((-value, one.place, passage.ordinal, (one.query_id, passage.passage_id)))
        expected = {pair for group in groups.values() for *_, pair in sorted(group)[:most]}
        assert len(made) == len(expected) == len(set(made))
        if prefilter == "bm25":  # float32 by hand, float64 in Spark: passages within rounding may change places
            score_of = {pair: -minus for group in groups.values() for minus, *_, pair in group}
            least = {key: -sorted(group)[most - 1][0] for key, group in groups.items()}
            group_of_pair = {(one.query_id, passage.passage_id): group_of(one) for one, passage in all_pairs}
            assert all(score_of[pair] >= least[group_of_pair[pair]] - 1e-5 for pair in made)
        else:
            assert set(made) == expected

    check(pairs_made(sample, passages_per_document=3, prefilter=prefilter), lambda one: (one.query_id, one.doc_id), 3)
    check(pairs_made(sample, passages_per_query=7, prefilter=prefilter), lambda one: one.query_id, 7)


def test_texts_in_the_pairs(sample):
    chosen, passages = sample
    config = BuildPairsConfig(tokenizer="none", passage_in_pairs=True, prefilter="overlap", passages_per_document=2)
    rows = transform(chosen, passages, config, chosen.count() * 10, 2).collect()
    texts = {row.passage_id: row.passage for row in passages.collect()}
    queries = {row.query_id: row.query for row in chosen.collect()}
    assert len(rows) == 2 * chosen.count()
    assert all((row.query, row.passage) == (queries[row.query_id], texts[row.passage_id]) for row in rows)


def test_duplicates_are_merged_and_boilerplate_left_out(spark, sample):
    chosen, passages = sample
    twin = F.when(F.col("passage_id") == "d07:3", "d05:1").when(F.col("passage_id") == "d08:3", "d05:1")
    marked = passages.withColumn("duplicate_of", twin)
    alone = set(pairs_made((chosen, passages)))
    merged_pairs = pairs_made((chosen, marked), duplicates="merge")
    renamed = {(query, "d05:1" if passage in ("d07:3", "d08:3") else passage) for query, passage in alone}
    assert merged_pairs == sorted(renamed)
    shared = passages.withColumn("documents_sharing", F.when(F.col("ordinal") == 4, 3).otherwise(1))
    assert pairs_made((chosen, shared), boilerplate_documents=3) == sorted(pair for pair in alone if pair[1][-1] != "4")


@pytest.mark.parametrize("adaptive", ["true", "false"])
def test_a_document_of_very_many_queries_is_dealt_to_several_tasks(spark, monkeypatch, adaptive):
    monkeypatch.setattr(selection, "ROWS_PER_SLICE", 2_000)
    monkeypatch.setattr(selection, "CANDIDATES_PER_TASK", 5_000)
    queries = spark.range(10_000).select(F.concat(F.lit("q"), "id").alias("query_id"), F.lit("text").alias("query"))
    hot = queries.withColumn("doc_id", F.lit("hot")).withColumn("place", F.lit(1))
    cold = queries.limit(50).withColumn("doc_id", F.concat(F.lit("c"), "query_id")).withColumn("place", F.lit(2))
    many = spark.range(1_000).select(
        F.lit("q1").alias("query_id"),
        F.lit("text").alias("query"),
        F.concat(F.lit("m"), "id").alias("doc_id"),
        F.lit(3).alias("place"),
    )
    chosen = hot.unionByName(cold).unionByName(many)
    documents = chosen.select("doc_id").distinct()
    passages = documents.crossJoin(spark.range(10).select(F.col("id").cast("int").alias("ordinal")))
    passages = passages.select(
        F.concat_ws(":", "doc_id", "ordinal").alias("passage_id"),
        "doc_id",
        "ordinal",
        F.lit("a passage").alias("passage"),
        F.lit(None).cast("string").alias("duplicate_of"),
        F.lit(1).alias("documents_sharing"),
    )
    config = BuildPairsConfig(tokenizer="none")
    before = {name: spark.conf.get(name) for name in ("spark.sql.adaptive.enabled", "spark.sql.shuffle.partitions")}
    try:
        spark.conf.set("spark.sql.adaptive.enabled", adaptive)
        spark.conf.set("spark.sql.shuffle.partitions", "40")
        pairs = transform(chosen, passages, config, 110_500, 2).withColumn("task", F.spark_partition_id()).persist()
        sizes = [row["count"] for row in pairs.groupBy("task").count().collect()]
    finally:
        for name, value in before.items():
            spark.conf.set(name, value)
    assert sum(sizes) == pairs.select("query_id", "passage_id").distinct().count() == 10 * (10_000 + 50 + 1_000)
    assert max(sizes) < 15_000, "the hot document alone has 100,000 pairs"


def test_of_rows_with_one_key_the_best_stays(spark):
    rows = [(f"q{i}", f"d{i}", float(rank)) for i in range(20) for rank in (9, 1, 5)]
    frame = spark.createDataFrame(rows, "query_id string, doc_id string, doc_rank double")
    query_map = frame.select(F.col("query_id").alias("raw_query_id"), "query_id").distinct()
    coded = selection.coded_query_documents(frame, query_map, frame.select("doc_id").distinct())
    assert {row.doc_rank for row in coded.where("error_code IS NULL").collect()} == {1.0}
    queries = spark.createDataFrame([("a", "text", None), ("a", "text", 7.0), ("a", "text", 5.0)], QUERIES)
    assert [row.frequency for row in normalised(queries).where("error_code IS NULL").collect()] == [7.0]


def test_a_merged_duplicate_goes_by_the_text_and_the_documents_of_the_other(spark):
    rows = [
        ("a:1", "a", 0, "the text", None, 30),
        ("b:1", "b", 0, "the text, nearly", "a:1", 1),
        ("c:1", "c", 0, "something else", None, 1),
    ]
    passages = spark.createDataFrame(rows, PASSAGES)
    chosen = spark.createDataFrame(
        [("q1", "text", "a", 1), ("q2", "text", "b", 1), ("q2", "text", "c", 2)],
        "query_id string, query string, doc_id string, place int",
    )
    config = BuildPairsConfig(tokenizer="none", duplicates="merge", passage_in_pairs=True)
    made = {(row.query_id, row.passage_id): row.passage for row in transform(chosen, passages, config, 3, 2).collect()}
    assert made == {("q1", "a:1"): "the text", ("q2", "a:1"): "the text", ("q2", "c:1"): "something else"}
    config = BuildPairsConfig(tokenizer="none", duplicates="merge", boilerplate_documents=20)
    assert [row.passage_id for row in transform(chosen, passages, config, 3, 2).collect()] == ["c:1"]


def test_near_duplicates(spark):
    base = (
        "the quick brown fox jumps over the lazy dog near the old river bank while the sun sets behind far hills " * 2
    )
    words = base.split()
    rows = [
        ("a", base),
        ("b", " ".join([*words[:-1], "mountains"])),
        ("c", " ".join(["one", *words[1:-1], "mountains"])),
        ("d", "an entirely different text about gaskets and seals between two surfaces of an engine"),
        ("e", "too short"),
    ]
    frame = spark.createDataFrame(rows, "passage_id string, passage string")
    found = {row.passage_id: row.duplicate_of for row in near_duplicates(frame, 0.8).collect()}
    assert found == {"b": "a", "c": "a"}
    assert near_duplicates(frame, 1.0).isEmpty()


@pytest.mark.parametrize(
    ("name", "schema", "message"),
    [
        ("queries", "query_id string", "lacks the columns query; it has query_id"),
        ("queries", "query_id double, query string", "column query_id of .* is double; it must be string or integer"),
        (
            "queries",
            "query_id string, query string, frequency boolean",
            "column frequency of .* is boolean; it must be a number",
        ),
        ("documents", "doc_id string, body string", "lacks the columns text; it has doc_id, body"),
        ("query_documents", "query_id string, doc_id string", "lacks the columns doc_rank"),
    ],
)
def test_wrong_inputs_are_told_before_anything_runs(spark, tmp_path, name, schema, message):
    table = Table(spark, str(tmp_path / "table"))
    spark.createDataFrame([], schema).write.format("delta").save(table.location)
    with pytest.raises(InputError, match=message):
        read_input(name, table, None)


def test_csv_files_and_integer_ids(spark, tmp_path):
    path = tmp_path / "queries.csv"
    path.write_text('query_id,query,frequency\n1,"what, then",5\n2,why,many\n3,how,\n')
    rows = read_input("queries", Table(spark, str(path)), None).rows
    coded = normalised(rows).orderBy("query_id").collect()
    assert [(row.query_id, row.query, row.frequency, row.error_code) for row in coded if row.query_id != "2"] == [
        ("1", "what, then", 5.0, None),
        ("3", "how", None, None),
    ]
    assert coded[1].error_code == "invalid_frequency"


@pytest.mark.parametrize(
    ("written", "frequency"),
    [("10", 10.0), ("1.5", 1.5), ("1e3", 1000.0), (" 5 ", 5.0), ("+2", 2.0), (".5", 0.5)]
    + [(wrong, None) for wrong in ("10d", "10f", "0x10", "NaN", "Infinity", "-inf", "-1", "1,000", "1e999", "١")],
)
def test_frequencies_that_are_text(written, frequency, spark):
    rows = spark.createDataFrame([("q", "what is this", written)], "query_id string, query string, frequency string")
    rows = rows.select("query_id", "query", inputs._number(rows, "frequency"))
    coded = normalised(rows).first()
    assert (coded.frequency if coded.error_code is None else None) == frequency
    assert coded.error_code == (None if frequency is not None else "invalid_frequency")
