"""Skewed and odd pairs, through the job's transform and from files."""

import json

import pytest
from pyspark.sql import functions as F

from jobs.score import ScoreConfig, run, transform
from mkdm.scoring.scorer import Scorer

PAIRS = "query_id string, passage_id string, query string, passage string"


@pytest.fixture
def config(warehouse, student_folder) -> ScoreConfig:
    return ScoreConfig(model=student_folder, warehouse=warehouse.root, precision="fp32")


@pytest.mark.slow
def test_one_query_with_very_many_passages_is_spread_over_tasks(spark, config):
    rows = [("heavy", str(i), "what is a gasket", f"a gasket is a seal {i % 7}") for i in range(4000)]
    heavy = spark.createDataFrame(rows, PAIRS)
    scored = transform(heavy, config, tasks=8).withColumn("task", F.spark_partition_id()).cache()
    sizes = [row["count"] for row in scored.groupBy("task").count().collect()]
    assert sum(sizes) == 4000
    assert max(sizes) <= 4000 * 4 / 8, "no task has much more than its share"
    assert scored.where("padded_tokens > 0").count() <= 7 * 8, "equal texts are scored once per window"
    seven = Scorer.load(config.model, precision="fp32").score([rows[0][2]] * 7, [row[3] for row in rows[:7]])
    found = {int(row.passage_id): row.score for row in scored.select("passage_id", "score").collect()}
    assert [found[i] for i in range(4000)] == pytest.approx([float(seven[i % 7]) for i in range(4000)], abs=1e-5)
    scored.unpersist()


def test_texts_of_all_kinds(spark, config):
    texts = {
        "emoji": "👩‍👩‍👧‍👦 seals 🦭🦭 and 🇪🇺 flags",
        "combining": "e\u0301\u0323" * 50 + " n\u0303",
        "right to left": "מהו אטם? ما هي الحشية",
        "nul": "a gasket\x00 is\x00 a seal",
        "control": "a\u200bgasket\u202eis\ufeffa seal\r\n\t",
        "one megabyte": "a gasket is a seal between two surfaces. " * 25_000,
        "one long word": "gasket" * 100_000,
    }
    assert len(texts["one megabyte"]) > 1_000_000
    rows = [("q", name, "what is a gasket 🦭", text) for name, text in texts.items()]
    pairs = spark.createDataFrame(rows, PAIRS).repartition(40)  # most partitions are empty
    scored = {row.passage_id: row for row in transform(pairs, config, tasks=5).collect()}
    assert {name: row.error_code for name, row in scored.items()} == dict.fromkeys(texts)
    expected = Scorer.load(config.model, precision="fp32").score([row[2] for row in rows], [row[3] for row in rows])
    assert {name: row.score for name, row in scored.items()} == pytest.approx(
        dict(zip(texts, expected.tolist(), strict=True)), abs=1e-5
    )


def test_lone_surrogates_of_a_json_file(spark, warehouse, config, tmp_path):
    rows = [
        {"query_id": 1, "passage_id": 1, "query": "what is a gasket", "passage": "a \ud83d seal"},
        {"query_id": 1, "passage_id": 2, "query": "what is a gasket", "passage": "\udc00"},
        {"query_id": 1, "passage_id": 3, "query": "what is a gasket", "passage": "a seal"},
    ]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))  # as \ud83d, which is valid JSON
    report = run(spark, ScoreConfig(**(vars(config) | {"pairs": str(path), "max_reject_rate": 1.0})))
    assert report.totals.rows_read == 3
    assert report.totals.rows_written + report.totals.rows_rejected == 3
    scores = {row.passage_id for row in warehouse.table("scores").read().collect()}
    assert scores == {"3"}, "half of a character was never scored as if it were a question mark"
    rejects = warehouse.table("rejected_pairs").read().collect()
    assert {(row.passage_id, row.error_code) for row in rejects} == {("1", "invalid_text"), ("2", "invalid_text")}
