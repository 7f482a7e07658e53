"""Incremental runs beside what one full run gives: the cases that went wrong once, and what the feed cannot tell."""

import shutil
from collections import Counter

import pytest
from changing_pairs import SCHEMA, written
from delta_sql import update
from deltalake import DeltaTable as Reader
from pyspark.sql import functions as F

from jobs.engine import Identity, Ledger, RunReport, Totals, Warehouse, chain_of, commit, incremental, read_pairs
from jobs.engine.incremental import begin_to_replace, lies_in, near, places_of, since
from jobs.engine.ledger import COMPLETE, REPLACING, RunState
from jobs.engine.schemas import PASSAGES_AT
from jobs.rank import RankConfig
from jobs.rank import run as rank
from jobs.score import ScoreConfig, run
from mkdm.columns import PAIR_KEY
from mkdm.errors import ConfigError, InputError, RunFailedError

A, B, C = (("q", name, "what is a gasket", f"A gasket is a seal: {name}.") for name in "abc")
OTHER_TEXT = ("q", "b", "what is a gasket", "Rubber.")
NULL_KEY = (None, "n", "what is a gasket", "A seal.")
NAMES = ("scores", "rejected_pairs")


@pytest.fixture
def config(warehouse, student_folder) -> ScoreConfig:
    return ScoreConfig(
        model=student_folder, warehouse=warehouse.root, precision="fp32", incremental=True, max_reject_rate=1.0
    )


def but(config: ScoreConfig, **changes) -> ScoreConfig:
    return ScoreConfig(**(vars(config) | changes))


def put(warehouse: Warehouse, *rows: tuple) -> None:
    warehouse.table("pairs").overwrite(warehouse.spark.createDataFrame(list(rows), SCHEMA).coalesce(1))


def of_chain(warehouse: Warehouse, report: RunReport) -> Counter:
    """By key and code, how many rows a run and those that it adds to have; of scores the hash is that of the pairs."""
    chain = chain_of(Ledger(warehouse.table("runs")), report.run.run_id)
    counted, _ = written(warehouse.root, NAMES, chain)
    there = read_pairs(warehouse.spark, warehouse.table("pairs"), None).rows
    hashes = set(map(tuple, there.select(*PAIR_KEY, F.xxhash64("query", "passage")).collect()))
    assert {key[:3] for key in counted if key[3] is None} <= hashes
    return Counter({(key[0], key[1], key[3]): number for key, number in counted.items()})


def scored(*rows: tuple) -> Counter:
    return Counter((*row[:2], None) for row in rows)


@pytest.mark.slow
def test_copies_and_second_texts_that_come_and_go(spark, warehouse, config):
    """A pair must not be lost with its copy, nor counted twice; rows with a null in the key are counted."""
    put(warehouse, A, B, C, NULL_KEY)
    null_key = Counter({(None, "n", "null_key"): 1})
    assert of_chain(warehouse, run(spark, config)) == scored(A, B, C) + null_key
    warehouse.table("pairs").append(spark.createDataFrame([A, OTHER_TEXT, NULL_KEY], SCHEMA), "more")
    second = run(spark, config)
    copies = Counter({("q", "a", "duplicate_key"): 1, ("q", "b", "duplicate_key"): 1})
    assert of_chain(warehouse, second) == scored(A, B, C) + copies + null_key + null_key
    assert (second.totals.rows_read, second.totals.rows_written) == (6, 2), "C was not touched"
    put(warehouse, A, B, C, NULL_KEY)
    third = run(spark, config)
    assert of_chain(warehouse, third) == scored(A, B, C) + null_key
    assert third.totals.rows_read == 4 - 1
    assert rank(spark, RankConfig(warehouse=warehouse.root)).rows == 3
    ranked = Reader(warehouse.table("ranked_passages").location).to_pyarrow_table().to_pylist()
    assert {row["passage_id"] for row in ranked} == {"a", "b", "c"}


@pytest.mark.slow
def test_what_the_feed_cannot_tell_is_told_by_the_scores(spark, warehouse, config, capsys):
    """Columns of another type, and a chain that lacks a pair, as those of engines before 0.8 may."""
    pairs = warehouse.table("pairs")
    rows = [("1", *A[1:]), ("2", *B[1:]), ("3", *C[1:])]
    put(warehouse, *rows)
    first = run(spark, config)
    assert "comparing all pairs" not in capsys.readouterr().err
    pairs.overwrite(pairs.read().where("query_id != '3'").withColumn("query_id", F.col("query_id").cast("bigint")))
    second = run(spark, config)
    assert f"comparing all pairs with what run {first.run.run_id}" in capsys.readouterr().err
    assert (second.totals.rows_read, of_chain(warehouse, second)) == (0, scored(*rows[:2]))

    warehouse.table("scores").delete("query_id = '1'")
    update(pairs, "query_id = 2", passage="Rubber.")
    third = run(spark, config)
    assert f"comparing all pairs with what run {second.run.run_id}" in capsys.readouterr().err
    assert (third.totals.rows_read, of_chain(warehouse, third)) == (2, scored(*rows[:2]))


@pytest.mark.slow
def test_padded_ids(spark, warehouse, config):
    """CHAR(n) comes padded out of the table and its feed; the ids of scores are as they were written."""
    pairs = warehouse.table("pairs")
    pairs.drop()
    spark.sql(
        f"CREATE TABLE {pairs.sql_name} (query_id CHAR(4), passage_id STRING, query STRING, passage STRING) "
        "USING delta TBLPROPERTIES (delta.enableChangeDataFeed = true)"
    )
    pairs.append(spark.createDataFrame([A, B], SCHEMA), "first")
    run(spark, config)
    changed = spark.createDataFrame([(*A[:3], "Rubber.")], SCHEMA)
    changed.write.format("delta").mode("overwrite").save(pairs.location)  # Delta deletes from no table with CHAR
    second = run(spark, config)
    assert (second.totals.rows_read, of_chain(warehouse, second)) == (1, scored(A))


def test_feed_that_was_vacuumed_is_refused_and_nothing_taken_out(spark, warehouse, config):
    put(warehouse, A, B)
    first = run(spark, config)
    pairs = warehouse.table("pairs")
    update(pairs, "passage_id = 'a'", passage="Rubber.")
    shutil.rmtree(f"{pairs.location}/_change_data")
    version = pairs.latest_version()
    with pytest.raises(InputError, match=rf"does not tell what changed from version {version} to {version}: .*VACUUM"):
        run(spark, config)
    assert Reader(f"{warehouse.root}/scores").to_pyarrow_table()["run_id"].to_pylist() == [first.run.run_id] * 2


@pytest.mark.slow
def test_passage_that_comes_back_is_scored(spark, warehouse, config):
    """Pairs without texts are told by their passages' feed too: the pairs themselves do not change here."""
    passages, pairs = warehouse.output("passages"), warehouse.table("pairs")
    texts = [(row[1], "d", place, row[3]) for place, row in enumerate((A, B, C))]
    of_texts = "passage_id string, doc_id string, ordinal int, passage string"
    passages.append(spark.createDataFrame(texts[:2], of_texts), "texts")
    pairs.overwrite(spark.createDataFrame([A[:3], B[:3], C[:3]], SCHEMA.rpartition(",")[0]).coalesce(1))
    pairs.set_properties({PASSAGES_AT: ""})
    first = run(spark, config)
    assert of_chain(warehouse, first) == scored(A, B) + Counter({("q", "c", "null_passage"): 1})
    assert first.run.input_versions["passages"] == f"{passages.table_id()}@{passages.latest_version()}"
    passages.append(spark.createDataFrame(texts[2:], of_texts), "more")
    passages.delete("passage_id = 'a'")
    update(passages, "passage_id = 'b'", ordinal=7)
    second = run(spark, config)
    assert second.totals.rows_read == 2
    assert of_chain(warehouse, second) == scored(B, C) + Counter({("q", "a", "null_passage"): 1})


@pytest.mark.slow
def test_run_whose_rows_were_replaced_is_not_taken_for_complete(spark, warehouse, config):
    put(warehouse, A, B)
    version = warehouse.table("pairs").latest_version()
    first = run(spark, config)
    warehouse.table("pairs").delete("passage_id = 'a'")
    run(spark, config)
    back = but(config, pairs_version=version, incremental=False)
    with pytest.raises(ConfigError, match=f"run {first.run.run_id} was replaced in part by an incremental run: give"):
        run(spark, but(back, run_id=first.run.run_id))
    again = run(spark, back)
    assert again.run.run_id == f"{first.run.run_id}.2"
    assert written(warehouse.root, NAMES, [again.run.run_id])[0].total() == 2


def test_two_runs_that_replace_rows_of_the_same_one(warehouse):
    """They were started side by side over two versions of the pairs; the second to take rows out ends there."""
    ledger = Ledger(warehouse.output("runs"))
    base = ledger.start(Identity("score", {}, {"pairs": "t@0"}, "m"), "base", 1, 1)
    ledger.record(base.run, COMPLETE, Totals())
    runs = [
        ledger.start(since(Identity("score", {}, {"pairs": f"t@{version}"}, "m"), base), f"r{version}", 1, 1).run
        for version in (1, 2)
    ]
    begin_to_replace(ledger, runs[0])
    begin_to_replace(ledger, runs[0])
    with pytest.raises(RunFailedError, match="run r1 has begun to replace rows of run base too: start this one again"):
        begin_to_replace(ledger, runs[1])
    assert RunState.of(ledger.rows(run_id="r2")).state == REPLACING


def test_a_document_that_changes_touches_its_own_files_of_scores(spark, warehouse, config, monkeypatch):
    """Scores lie by passage: the merge that takes old rows out looks at the files of these documents alone."""
    monkeypatch.setattr(commit, "SCORES_PER_FILE", 10)
    rows = [
        (f"q{q}", f"d{d:02d}:{p}", "what is a gasket", f"{d} {p} a seal.")
        for d in range(20)
        for p in "ab"
        for q in "xy"
    ]
    put(warehouse, *rows)
    run(spark, config)
    files = set(warehouse.table("scores").read().inputFiles())
    assert len(files) == 8
    changed = [(*row[:3], "Rubber.") if row[1].startswith("d07:") else row for row in rows]
    update(warehouse.table("pairs"), "passage_id LIKE 'd07:%'", passage="Rubber.")
    second = run(spark, config)
    assert (second.totals.rows_read, of_chain(warehouse, second)) == (4, scored(*changed))
    merge = warehouse.table("scores").history().where("operation = 'MERGE'").first()["operationMetrics"]
    assert int(merge["numTargetRowsDeleted"]) == 4
    assert len(files - set(warehouse.table("scores").read().inputFiles())) <= 2, "the others are as they were"
    keys = spark.createDataFrame(rows[28:32], SCHEMA).select(*PAIR_KEY)
    assert 1 <= len(near(warehouse.table("scores").read(), keys).inputFiles()) <= 3, "of 8, and one that was added"


def test_the_most_ranges_make_a_filter_that_java_can_compile(spark, tmp_path):
    """Delta makes of it one over the statistics of files, of four comparisons a range and more."""
    scores = spark.range(1000).selectExpr("printf('d%05d:0', id) AS passage_id", "'q' AS query_id")
    scores.write.format("delta").save(str(tmp_path / "scores"))
    keys = scores.where("passage_id < 'd00700'")
    assert len(places_of(keys)) == incremental.MOST_RANGES
    own = {name: spark.conf.get(name) for name in ("spark.sql.codegen.wholeStage", "spark.sql.codegen.fallback")}
    try:
        spark.conf.set("spark.sql.codegen.wholeStage", "true")
        spark.conf.set("spark.sql.codegen.fallback", "false")
        found = near(spark.read.format("delta").load(str(tmp_path / "scores")), keys)
        assert found.count() == 700
    finally:
        for name, value in own.items():
            spark.conf.set(name, value)


def test_ranges_hold_all_passages_of_the_keys(spark, monkeypatch):
    monkeypatch.setattr(incremental, "MOST_RANGES", 3)
    names = [f"d{d}:{p}'\\" for d in range(8) for p in "cab"] + ["alone", "ä:1"]
    keys = spark.createDataFrame([("q", name) for name in names], "query_id string, passage_id string")
    places = places_of(keys)
    assert len(places) <= 3
    assert keys.where(lies_in(places, "passage_id")).count() == len(names)
    others = spark.createDataFrame([("a",), ("€",), (None,)], "passage_id string")
    assert others.where(lies_in(places, "passage_id")).isEmpty()
    assert places_of(keys.union(spark.createDataFrame([("q", None)], keys.schema))) is None
    assert others.where(lies_in(places_of(keys.limit(0)), "passage_id")).isEmpty()
    monkeypatch.setattr(incremental, "MOST_DOCUMENTS", 9)
    assert places_of(keys) is None
