import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from pyspark.sql import functions as F
from pyspark.sql.pandas.functions import pandas_udf
from pyspark.sql.types import IntegerType

from cluster.classic import _newest
from cluster.connect import is_connect
from jobs.engine import Table, Warehouse, scoring
from jobs.engine.run_report import RunReport
from jobs.score import ScoreConfig, run, transform
from mkdm.errors import ConfigError, InputError, ModelError, RejectRateError, RunFailedError
from mkdm.model.folder import model_version
from mkdm.scoring.scorer import Scorer
from udfs.scoring import RESULT, _block_scorer

PAIRS = "query_id string, passage_id string, query string, passage string"


@pytest.fixture
def config(warehouse, student_folder) -> ScoreConfig:
    return ScoreConfig(model=student_folder, warehouse=warehouse.root, precision="fp32")


def keys(table: Table) -> list[tuple[str, str]]:
    return sorted((row.query_id, row.passage_id) for row in table.read().select("query_id", "passage_id").collect())


@pytest.fixture(scope="module")
def done(spark, tmp_path_factory, tables, student_folder) -> tuple[Warehouse, ScoreConfig, RunReport, int]:
    """A warehouse after a run, and how often Spark ran the model for it. For tests that change nothing."""
    warehouse = Warehouse(spark, str(shutil.copytree(tables, tmp_path_factory.mktemp("done") / "warehouse")))
    config = ScoreConfig(model=student_folder, warehouse=warehouse.root, precision="fp32")
    if is_connect(spark):  # whose server tells no plans
        return warehouse, config, run(spark, config), 1
    store = spark._jsparkSession.sharedState().statusStore()
    last = _newest(store)
    report = run(spark, config)
    executions = store.executionsList()
    newer = [one for one in map(executions.apply, range(executions.size())) if one.executionId() > last]
    return warehouse, config, report, sum("ArrowEvalPython" in one.physicalPlanDescription() for one in newer)


def test_scores_every_pair_once(done, sample_pairs, texts):
    warehouse, config, report, _ = done
    scores = warehouse.table("scores").read().toPandas()
    expected = dict(
        zip(
            [(pair["query_id"], pair["passage_id"]) for pair in sample_pairs],
            Scorer.load(config.model, precision="fp32").score(*texts),
            strict=True,
        )
    )
    got = {(row.query_id, row.passage_id): row.score for row in scores.itertuples()}
    assert len(scores) == len(got) == 300
    assert got == pytest.approx(expected, abs=1e-5)
    assert set(scores["model_version"]) == {model_version(config.model)}
    assert set(scores["run_id"]) == {report.run.run_id}
    assert warehouse.table("rejected_pairs").read().count() == 0
    assert (report.totals.rows_read, report.totals.rows_written, report.totals.rows_rejected) == (300, 300, 0)
    assert report.totals.model_loads == 1
    assert report.totals.tokens > 300 * 10
    assert 0 <= report.totals.padding_ratio < 0.5
    for line in ("rows read         300", "model loads       1", f"scores            {warehouse.root}/scores"):
        assert line in str(report)


def test_content_hash_is_spark_s_xxhash64_of_the_texts(done):
    warehouse, *_ = done
    pairs = warehouse.table("pairs").read().withColumn("expected", F.xxhash64("query", "passage"))
    joined = pairs.join(warehouse.table("scores").read(), ["query_id", "passage_id"])
    assert joined.where("expected = content_hash").count() == 300


def test_runs_records_what_was_done(done):
    warehouse, config, report, _ = done
    runs = warehouse.table("runs").read().orderBy("state", F.desc_nulls_last("chunk")).collect()
    assert [(row.state, row.chunk) for row in runs] == [("complete", 0), ("complete", None), ("started", None)]
    complete = runs[1]
    table_id = warehouse.table("pairs").table_id()
    assert complete.input_versions == {"pairs": f"{table_id}@0"}
    assert complete.run_id == runs[0].run_id == report.run.run_id
    assert complete.rows_read == 300
    assert complete.model_version == model_version(config.model)
    assert complete.finished_at >= complete.started_at
    assert complete.settings == {"backend": "auto", "precision": "fp32", "max_length": "None"}


def test_same_command_again_writes_nothing(spark, done, capsys):
    warehouse, config, first, _ = done
    version = warehouse.table("scores").latest_version()
    again = run(spark, config)
    assert f"run {first.run.run_id} is complete since" in capsys.readouterr().err
    assert again.run.run_id == first.run.run_id
    assert again.totals == first.totals
    assert warehouse.table("scores").latest_version() == version


def test_model_is_evaluated_once_for_all_outputs(done):
    assert done[3] == 1


def test_input_is_read_at_its_pinned_version(spark, warehouse, config, sample_pairs):
    more = [{**sample_pairs[0], "query_id": "new"}]
    warehouse.table("pairs").append(spark.createDataFrame(more, PAIRS), "more")
    old = run(spark, ScoreConfig(**(vars(config) | {"pairs_version": 0})))
    new = run(spark, ScoreConfig(**(vars(config) | {"max_length": 64})))
    assert (old.totals.rows_read, new.totals.rows_read) == (300, 301)
    assert old.run.run_id != new.run.run_id
    assert warehouse.table("scores").read().groupBy("run_id").count().count() == 2


def test_every_row_ends_in_exactly_one_table(spark, warehouse, config, sample_pairs):
    good = [tuple(pair.values()) for pair in sample_pairs[:20]]
    bad = [
        ("q", "null query", None, "a"),
        ("q", "null passage", "a", None),
        ("q", "empty", "a", " "),
        ("q", "long", "gasket " * 300, "a"),
        (None, "null key", "a", "b"),
        (None, "null key", "a", "b"),
        good[0],
        (*good[1][:2], "another", "text"),
    ]
    warehouse.table("pairs").overwrite(spark.createDataFrame(good + bad, PAIRS))

    report = run(spark, ScoreConfig(**(vars(config) | {"max_reject_rate": 0.5})))

    scores, rejected = warehouse.table("scores"), warehouse.table("rejected_pairs")
    assert keys(scores) == sorted(row[:2] for row in good)
    assert report.rejects == {
        "duplicate_key": 2,
        "empty_passage": 1,
        "null_key": 2,
        "null_passage": 1,
        "null_query": 1,
        "query_too_long": 1,
    }
    assert rejected.read().count() == len(bad) == report.totals.rows_rejected
    assert report.totals.rows_read == len(good) + len(bad)
    reject = rejected.read().where("passage_id = 'null query'").first()
    assert (reject.job, reject.error_message, reject.run_id) == ("score", "the query is null", report.run.run_id)


def test_text_that_is_not_utf8_is_rejected(spark, warehouse, config):
    rows = [("q", "good", "a", b"a seal"), ("q", "bad", "a", b"\xff\xfe")]
    raw = spark.createDataFrame(rows, "query_id string, passage_id string, query string, bytes binary")
    pairs = raw.select("query_id", "passage_id", "query", F.col("bytes").cast("string").alias("passage"))
    scored = {row.passage_id: row for row in transform(pairs, config).collect()}
    assert scored["bad"].error_code == "invalid_text"
    assert scored["bad"].score is None
    assert scored["good"].error_code is None


def test_too_many_rejects_fail_the_job_and_lose_nothing(spark, warehouse, config):
    rows = [("q", str(i), "a", "b" if i else None) for i in range(10)]
    warehouse.table("pairs").overwrite(spark.createDataFrame(rows, PAIRS))
    with pytest.raises(RejectRateError, match=r"10.0% of the pairs were rejected \(1 null_passage\)"):
        run(spark, config)
    assert warehouse.table("scores").read().count() == 9
    assert warehouse.table("rejected_pairs").read().count() == 1


@pytest.mark.parametrize("lost", ["rejected_pairs", "runs"])
def test_crash_between_commits_leaves_nothing_lost_or_double(spark, warehouse, config, lost, monkeypatch):
    rows = [("q", str(i), "a", "b" if i else None) for i in range(30)]
    warehouse.table("pairs").overwrite(spark.createDataFrame(rows, PAIRS))
    append = Table.append

    def crash(self, rows, transaction, partition_by=None):
        if self.location.endswith(f"/{lost}") and not transaction.endswith("/started"):
            raise KeyboardInterrupt
        append(self, rows, transaction, partition_by)

    monkeypatch.setattr(Table, "append", crash)
    with pytest.raises(KeyboardInterrupt):
        run(spark, config)
    monkeypatch.setattr(Table, "append", append)

    report = run(spark, config)

    assert report.totals.rows_read == 30
    assert keys(warehouse.table("scores")) == sorted(("q", str(i)) for i in range(1, 30))
    assert keys(warehouse.table("rejected_pairs")) == [("q", "0")]


def test_integer_ids_become_strings(spark, warehouse, config):
    rows = [(1, 2, "a", "b")]
    pairs = spark.createDataFrame(rows, "query_id long, passage_id int, query string, passage string")
    warehouse.table("pairs").overwrite(pairs)
    run(spark, config)
    assert keys(warehouse.table("scores")) == [("1", "2")]


@pytest.mark.parametrize("kind", ["csv", pytest.param("jsonl", marks=pytest.mark.slow), "parquet"])
def test_pairs_from_a_file(spark, config, kind, tmp_path, sample_pairs):
    pairs = [{**pair, "passage": pair["passage"] + ' "quoted", and\nbroken'} for pair in sample_pairs[:5]]
    path = tmp_path / f"mine.{kind}"
    if kind == "jsonl":
        path.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    else:
        frame = pd.DataFrame(pairs)
        frame.to_csv(path, index=False) if kind == "csv" else frame.to_parquet(path)
    report = run(spark, ScoreConfig(**(vars(config) | {"pairs": str(path)})))
    assert (report.totals.rows_read, report.totals.rows_written) == (5, 5)
    scores = Table(spark, report.tables["scores"]).read().toPandas()
    scorer = Scorer.load(config.model, precision="fp32")
    expected = scorer.score([pair["query"] for pair in pairs], [pair["passage"] for pair in pairs])
    got = {(row.query_id, row.passage_id): row.score for row in scores.itertuples()}
    wanted = {(p["query_id"], p["passage_id"]): s for p, s in zip(pairs, expected, strict=True)}
    assert got == pytest.approx(wanted, abs=1e-5)


def test_catalog_warehouse(spark, config, sample_pairs):
    spark.sql("CREATE SCHEMA IF NOT EXISTS answers")
    try:
        warehouse = Warehouse(spark, "spark_catalog.answers")
        warehouse.table("pairs").overwrite(spark.createDataFrame(sample_pairs[:5], PAIRS))
        report = run(spark, ScoreConfig(**(vars(config) | {"warehouse": "spark_catalog.answers"})))
        assert report.tables["scores"] == "spark_catalog.answers.scores"
        assert spark.table("answers.scores").count() == 5
        names = {row.tableName for row in spark.sql("SHOW TABLES IN answers").collect()}
        assert names == {"pairs", "scores", "rejected_pairs", "runs"}
    finally:
        spark.sql("DROP SCHEMA answers CASCADE")


def test_warehouse_of_a_relative_path(spark, config, tmp_path, sample_pairs):
    here = Path("build", tmp_path.name)  # Spark's working folder is the one that its JVM was started in
    try:
        Table(spark, f"{here}/pairs").overwrite(spark.createDataFrame(sample_pairs[:5], PAIRS))
        assert run(spark, ScoreConfig(**(vars(config) | {"warehouse": str(here)}))).totals.rows_written == 5
        assert (here / "scores" / "_delta_log").is_dir()
    finally:
        shutil.rmtree(here, ignore_errors=True)


def test_catalog_warehouse_whose_schema_is_not_there(spark, config, tmp_path, sample_pairs):
    pairs = str(tmp_path / "pairs")
    Table(spark, pairs).overwrite(spark.createDataFrame(sample_pairs[:5], PAIRS))
    with pytest.raises(ConfigError, match=r"cannot create the table spark_catalog\.nobody\.scores: .*nobody"):
        run(spark, ScoreConfig(**(vars(config) | {"warehouse": "spark_catalog.nobody", "pairs": pairs})))


def test_one_table_can_be_moved(spark, warehouse, config, tmp_path):
    moved = str(tmp_path / "elsewhere")
    run(spark, ScoreConfig(**(vars(config) | {"scores": moved})))
    assert Table(spark, moved).read().count() == 300
    assert warehouse.table("scores").read().isEmpty()


def _refused(spark, config, error, message, **changes):
    """The job refuses before any model is loaded, and starts no run."""
    with pytest.raises(error, match=message):
        run(spark, ScoreConfig(**(vars(config) | changes)))
    assert Table(spark, f"{config.warehouse}/runs").latest_version() == 0


def test_no_pairs_table(spark, config):
    _refused(spark, config, InputError, "no Delta table at .*/nothing", pairs=f"{config.warehouse}/nothing")


def test_no_such_file(spark, config):
    _refused(spark, config, InputError, "cannot read nothing.csv as csv", pairs="nothing.csv")


def test_no_such_version(spark, config):
    _refused(spark, config, InputError, "has no version 7; its newest is 0", pairs_version=7)


def test_version_of_a_file(spark, config):
    _refused(spark, config, InputError, "is for Delta tables", pairs="mine.csv", pairs_version=7)


def test_missing_columns(spark, warehouse, config):
    warehouse.table("pairs").overwrite(warehouse.table("pairs").read().drop("passage_id", "passage"))
    _refused(spark, config, InputError, "lacks the columns passage_id, passage; it has query_id, query")


def test_wrong_type(spark, warehouse, config):
    rows = warehouse.table("pairs").read().withColumn("query", F.lit(1).cast(IntegerType()))
    warehouse.table("pairs").overwrite(rows)
    _refused(spark, config, InputError, "column query of .* is int; it must be string")


def test_empty_table(spark, warehouse, config):
    warehouse.table("pairs").overwrite(warehouse.table("pairs").read().limit(0))
    _refused(spark, config, InputError, "has no row: there is nothing to score")


def test_no_model_folder(spark, config):
    _refused(spark, config, ModelError, "no model folder at nowhere", model="nowhere")


def test_model_with_a_missing_file(spark, config, tmp_path):
    folder = shutil.copytree(config.model, tmp_path / "model")
    (folder / "tokenizer.json").unlink()
    _refused(spark, config, ModelError, "lacks tokenizer.json", model=str(folder))


def test_model_with_a_changed_file(spark, config, tmp_path):
    folder = shutil.copytree(config.model, tmp_path / "model")
    (folder / "tokenizer_config.json").write_text("{}")
    _refused(spark, config, ModelError, "tokenizer_config.json in .* has changed", model=str(folder))


def test_setting_that_the_model_cannot_meet(spark, config):
    _refused(spark, config, ConfigError, "--max-length is 4000; this model takes 1 to 128 tokens", max_length=4000)


def test_fault_of_a_worker_is_one_line(spark, warehouse, config, monkeypatch):
    def refusing_udf(settings):
        def refuse(batches):
            raise ModelError(f"the model at {settings.model} is not the driver's")
            yield

        refuse.__annotations__ = _block_scorer(settings).__annotations__
        return pandas_udf(refuse, RESULT).asNondeterministic()

    monkeypatch.setattr(scoring, "score_udf", refusing_udf)
    with pytest.raises(RunFailedError, match=r"^run score-\w+ failed: the model at .* is not the driver's$"):
        run(spark, config)
    assert [row.state for row in warehouse.table("runs").read().orderBy("state").collect()] == ["failed", "started"]


@pytest.mark.parametrize(
    "changes", [{"max_reject_rate": 1.5}, {"rows_per_task": 0}, {"max_length": 0}, {"token_budget": -1}]
)
def test_number_outside_its_range(changes):
    with pytest.raises(ConfigError, match=f"--{next(iter(changes)).replace('_', '-')} is"):
        ScoreConfig(model="", **changes)
