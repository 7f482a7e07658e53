"""From a first run over a change of the pairs to what readers see: incremental runs, ranking, the contract."""

import json

import pandas as pd
import pytest
from delta_sql import optimise, update
from deltalake import DeltaTable as Reader
from deltalake import QueryBuilder
from pyspark.sql import functions as F

from jobs.engine.schemas import TABLES
from jobs.rank import RankConfig
from jobs.rank import run as rank
from jobs.rank import transform as rank_rows
from jobs.score import ScoreConfig, run
from mkdm.errors import ConfigError, InputError
from mkdm.scoring.scorer import Scorer

PAIRS = "query_id string, passage_id string, query string, passage string"


@pytest.fixture
def config(warehouse, student_folder) -> ScoreConfig:
    return ScoreConfig(model=student_folder, warehouse=warehouse.root, precision="fp32")


def but(config: ScoreConfig, **changes) -> ScoreConfig:
    return ScoreConfig(**(vars(config) | changes))


def rows_of(path: str) -> list[dict]:
    """All rows, as delta-rs and pandas give them: no Spark."""
    return Reader(path).to_pandas().to_dict("records")


def best(scores: dict[tuple[str, str], float], k: int) -> list[tuple[str, int, str, float]]:
    """The ranking by hand."""
    ranked = []
    for query in {key[0] for key in scores}:
        mine = sorted((-score, key[1]) for key, score in scores.items() if key[0] == query)
        ranked += [(query, rank, passage, -minus) for rank, (minus, passage) in enumerate(mine[:k], 1)]
    return sorted(ranked)


def test_what_readers_see_from_run_to_run(spark, warehouse, config, sample_pairs, tmp_path, capsys):
    """One life of a warehouse: scored, ranked, changed, scored incrementally, ranked again, taken back."""
    scores, ranked = warehouse.table("scores").location, warehouse.table("ranked_passages").location
    first = run(spark, but(config, incremental=True))
    assert "no complete run of this model and these settings to add to: scoring all pairs" in capsys.readouterr().err
    report = rank(spark, RankConfig(warehouse=warehouse.root, top_k=3))
    by_key = {(row["query_id"], row["passage_id"]): row["score"] for row in rows_of(scores)}
    assert [
        tuple(row[name] for name in ("query_id", "rank", "passage_id", "score")) for row in _sorted(ranked)
    ] == best(by_key, 3)
    assert (report.before, report.run_id) == (None, first.run.run_id)
    assert rank(spark, RankConfig(warehouse=warehouse.root, top_k=3)).version == report.version
    assert "is published already" in capsys.readouterr().err

    # nothing changed, or only the files did
    pairs = warehouse.table("pairs")
    assert run(spark, but(config, incremental=True)).run == first.run
    assert f"nothing changed since run {first.run.run_id}" in capsys.readouterr().err

    # two pairs come, two change, one of them back again, three leave, and all files are rewritten
    keys = [(pair["query_id"], pair["passage_id"]) for pair in sample_pairs]
    new = [{**sample_pairs[0], "passage_id": "new"}, {**sample_pairs[5], "query_id": "new query"}]
    pairs.append(spark.createDataFrame(new, PAIRS), "new")
    same = "query_id = '{}' AND passage_id = '{}'".format
    old_text = sample_pairs[11]["passage"]
    update(pairs, same(*keys[10]), passage="a gasket is a seal")
    update(pairs, same(*keys[11]), passage="something else")
    update(pairs, same(*keys[11]), passage=old_text)
    for key in keys[20:23]:
        pairs.delete(same(*key))
    optimise(pairs, order_by="query_id")

    second = run(spark, but(config, incremental=True))
    assert (second.totals.rows_read, second.totals.rows_written) == (3, 3), "new, new and changed; not changed and back"
    assert run(spark, but(config, incremental=True)).run == second.run
    now = {(row["query_id"], row["passage_id"]): row for row in rows_of(scores)}
    expected = {(row.query_id, row.passage_id): row for row in pairs.read().collect()}
    assert len(rows_of(scores)) == len(now) == 299
    assert now.keys() == expected.keys()
    scorer = Scorer.load(config.model, precision="fp32")
    fresh = scorer.score(*zip(*[(expected[key].query, expected[key].passage) for key in now], strict=True))
    assert [row["score"] for row in now.values()] == pytest.approx(fresh.tolist(), abs=1e-5)
    changed = {keys[10], (keys[0][0], "new"), ("new query", keys[5][1])}
    assert {key for key, row in now.items() if row["run_id"] == second.run.run_id} == changed

    # the ranking still is the old one, until it is the new one; the change feed tells only what is different
    assert [row["run_id"] for row in rows_of(ranked)] == [first.run.run_id] * len(rows_of(ranked))
    with pytest.raises(InputError, match=f"an incremental run has replaced scores of run {first.run.run_id}"):
        rank(spark, RankConfig(warehouse=warehouse.root, top_k=3, run_id=first.run.run_id))
    updated = rank(spark, RankConfig(warehouse=warehouse.root, top_k=3))
    assert (updated.before, updated.run_id) == (report.version, second.run.run_id)
    by_key = {key: row["score"] for key, row in now.items()}
    assert [
        tuple(row[name] for name in ("query_id", "rank", "passage_id", "score")) for row in _sorted(ranked)
    ] == best(by_key, 3)
    feed = Reader(ranked).load_cdf(starting_version=updated.version, ending_version=updated.version).read_all()
    touched = {keys[0][0], "new query", *(keys[i][0] for i in (10, 20, 21, 22))}
    assert 0 < feed.num_rows < 40
    assert set(feed["query_id"].to_pylist()) <= touched
    old = Reader(ranked, version=report.version).to_pandas()
    assert set(old["run_id"]) == {first.run.run_id}, "the old ranking stays readable by version"


def _sorted(path: str) -> list[dict]:
    return sorted(rows_of(path), key=lambda row: (row["query_id"], row["rank"]))


@pytest.mark.slow
def test_flip_to_another_model_is_one_commit(spark, warehouse, config):
    small = warehouse.table("pairs").read().limit(40)
    warehouse.table("pairs").overwrite(small)
    first = run(spark, config)
    rank(spark, RankConfig(warehouse=warehouse.root))
    second = run(spark, but(config, max_length=64))
    ranked = warehouse.table("ranked_passages")
    before = ranked.latest_version()
    assert rank(spark, RankConfig(warehouse=warehouse.root)).run_id == second.run.run_id
    assert ranked.latest_version() == before + 1
    back = rank(spark, RankConfig(warehouse=warehouse.root, run_id=first.run.run_id))
    assert {row["run_id"] for row in rows_of(ranked.location)} == {first.run.run_id}
    assert (back.rows, back.before) == (40, before + 1)


def test_ties_are_broken_by_passage_id(spark):
    rows = [("q", name, 0.5, "m", "r") for name in ("c", "a", "d", "b")] + [("q", "e", 0.75, "m", "r")]
    scores = spark.createDataFrame(
        rows, "query_id string, passage_id string, score float, model_version string, run_id string"
    )
    assert [(row.rank, row.passage_id) for row in rank_rows(scores, 3).orderBy("rank").collect()] == [
        (1, "e"),
        (2, "a"),
        (3, "b"),
    ]


def test_reader_s_contract(tables):
    """Columns, types, constraints and the change feed, as delta-rs sees them on tables that Spark made."""
    for name, kind in TABLES.items():
        if kind.built:  # see test_build_pairs.py
            continue
        reader = Reader(str(tables / name))
        fields = {field["name"]: field for field in json.loads(reader.schema().to_json())["fields"]}
        assert list(fields) == kind.schema.names
        assert {key for key, field in fields.items() if not field["nullable"]} == {
            field.name for field in kind.schema if not field.nullable
        }
        configuration = reader.metadata().configuration
        assert {
            key.removeprefix("delta.constraints."): text for key, text in configuration.items() if "constr" in key
        } == (kind.checks)
        assert (configuration.get("delta.enableChangeDataFeed") == "true") == kind.followed
        assert reader.protocol().min_reader_version == 1, "any reader can read it"
        assert (
            QueryBuilder().register("t", reader).execute("SELECT count(*) AS n FROM t").read_all()["n"][0].as_py() == 0
        )


@pytest.mark.parametrize("row", [("q", "p", 1.5), ("q", "p", None), (None, "p", 0.5), ("q", None, 0.5)])
def test_delta_itself_refuses_rows_that_break_the_contract(spark, warehouse, row):
    rows = spark.createDataFrame([row], "query_id string, passage_id string, score float")
    with pytest.raises(Exception, match=r"CHECK constraint score_in_0_1|NOT NULL constraint|NOT_NULL"):
        rows.write.format("delta").mode("append").save(warehouse.table("scores").location)
    assert warehouse.table("scores").read().isEmpty()


def test_rank_needs_a_complete_run(spark, warehouse, config):
    with pytest.raises(InputError, match="has no complete scoring run: see mkdm runs"):
        rank(spark, RankConfig(warehouse=warehouse.root))
    with pytest.raises(InputError, match="has no complete scoring run nobody"):
        rank(spark, RankConfig(warehouse=warehouse.root, run_id="nobody"))
    with pytest.raises(ConfigError, match="--top-k is 0"):
        RankConfig(top_k=0)


def test_incremental_without_a_change_feed_says_how_to_get_it(spark, warehouse, config, sample_pairs, tmp_path):
    pairs = str(tmp_path / "plain")
    spark.createDataFrame(sample_pairs[:3], PAIRS).write.format("delta").save(pairs)
    run(spark, but(config, pairs=pairs))
    spark.createDataFrame(sample_pairs[3:5], PAIRS).write.format("delta").mode("append").save(pairs)
    with pytest.raises(InputError, match=r"does not tell what changed from version 1 to 1: .*enableChangeDataFeed"):
        run(spark, but(config, pairs=pairs, incremental=True))
    pd.DataFrame(sample_pairs[:3]).to_parquet(tmp_path / "mine.parquet")
    with pytest.raises(InputError, match=r"follows the change feed of a Delta table, .*mine\.parquet is a file"):
        run(spark, but(config, pairs=str(tmp_path / "mine.parquet"), incremental=True))


@pytest.mark.slow
def test_incremental_over_duplicate_keys(spark, warehouse, config, sample_pairs):
    pairs, chosen = warehouse.table("pairs"), but(config, incremental=True)
    pairs.overwrite(spark.createDataFrame([*sample_pairs[:30], {**sample_pairs[0], "passage": "other"}], PAIRS))
    assert run(spark, config).rejects == {"duplicate_key": 1}
    pairs.delete("passage = 'other'")
    report = run(spark, chosen)
    assert (report.totals.rows_read, report.rejects) == (1, {})
    texts = pairs.read().select("query_id", "passage_id", F.xxhash64("query", "passage")).collect()
    rows = rows_of(warehouse.table("scores").location)
    assert sorted((row["query_id"], row["passage_id"], row["content_hash"]) for row in rows) == sorted(
        map(tuple, texts)
    )
    assert rows_of(warehouse.table("rejected_pairs").location) == []
