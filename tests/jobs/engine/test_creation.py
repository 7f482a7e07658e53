"""Tables are what readers were promised, whatever the session's defaults are, and a stranger's table stays as it is."""

from contextlib import contextmanager
from dataclasses import replace

import pytest
from deltalake import DeltaTable as Reader
from pyspark.sql.types import StructType

from jobs.engine import FOREIGN, Table, Warehouse
from jobs.engine.creation import create
from jobs.engine.schemas import TABLES
from mkdm.errors import ConfigError

DEFAULTS = "spark.databricks.delta.properties.defaults."
FEW = ("pairs", "runs", "scores")
"""Tables that are looked at by default; all are created by one function."""


@contextmanager
def session_defaults(spark, **values):
    for name, value in values.items():
        spark.conf.set(DEFAULTS + name.replace("__", "."), value)
    try:
        yield
    finally:
        for name in values:
            spark.conf.unset(DEFAULTS + name.replace("__", "."))


@pytest.mark.parametrize(
    "name", [name if name in FEW else pytest.param(name, marks=pytest.mark.slow) for name in sorted(TABLES)]
)
def test_protocol_of_a_new_table_is_the_first(name, spark, tmp_path):
    hostile = {
        "enableDeletionVectors": "true",
        "columnMapping__mode": "name",
        "checkpointPolicy": "v2",
        "enableTypeWidening": "true",
        "minReaderVersion": "3",
        "appendOnly": "true",
    }
    table = Warehouse(spark, str(tmp_path / "w")).table(name)
    with session_defaults(spark, **hostile):
        create(table, TABLES[name])
    reader = Reader(table.location)
    assert reader.protocol().min_reader_version == 1
    assert [field.name for field in reader.schema().fields] == [field.name for field in TABLES[name].schema]
    create(table, TABLES[name])  # opened again, by a session without them
    assert table.latest_version() == 0, "one commit makes it, checks included"


def test_protocol_of_a_table_that_its_first_rows_make_is_the_first(spark, tmp_path):
    table = Table(spark, str(tmp_path / "experiments"))
    with session_defaults(spark, enableDeletionVectors="true", columnMapping__mode="name"):
        for plan in ("a", "b"):
            table.replace(spark.createDataFrame([(plan, 1)], "plan string, seed int"), "plan", plan)
    assert Reader(table.location).protocol().min_reader_version == 1
    assert table.read().count() == 2


def test_protocol_of_a_new_table_in_a_catalog_is_the_first(spark):
    spark.sql("CREATE SCHEMA pinned")
    with session_defaults(spark, enableDeletionVectors="true", columnMapping__mode="name"):
        scores = Warehouse(spark, "spark_catalog.pinned").output("scores")
    assert scores.detail("minReaderVersion") == {"minReaderVersion": 1}
    assert scores.latest_version() == 0
    with pytest.raises(FOREIGN, match="score_in_0_1"):
        scores.append(one_score(spark, 1.5), "wrong")
    spark.sql("DROP SCHEMA pinned CASCADE")


def one_score(spark, score):
    return spark.sql(f"SELECT 'q' AS query_id, 'p' AS passage_id, CAST({score} AS float) AS score")


def test_checks_hold_for_every_writer_from_the_first_row_on(spark, tmp_path):
    scores = Table(spark, str(tmp_path / "scores"))
    create(scores, TABLES["scores"])
    assert scores.properties()["delta.constraints.score_in_0_1"] == TABLES["scores"].checks["score_in_0_1"]
    for wrong in (1.5, "NULL"):
        with pytest.raises(FOREIGN, match=r"score_in_0_1|NOT NULL"):
            one_score(spark, wrong).write.format("delta").mode("append").save(scores.location)
    scores.append(one_score(spark, 0.5), "right")
    assert scores.read().count() == 1


def test_table_of_an_earlier_engine_gets_what_it_lacks(spark, tmp_path):
    scores = Table(spark, str(tmp_path / "scores"))
    kind = TABLES["scores"]
    create(scores, replace(kind, schema=StructType(kind.schema.fields[:4]), checks={}, followed=False))
    scores.append(one_score(spark, 0.5), "old")
    create(scores, kind)
    assert scores.read().schema.names == kind.schema.names
    assert scores.properties()["delta.enableChangeDataFeed"] == "true"
    with pytest.raises(FOREIGN, match="score_in_0_1"):
        scores.append(one_score(spark, 1.5), "wrong")
    assert scores.read().count() == 1


def test_table_that_needs_newer_readers_is_refused(spark, tmp_path):
    table = Table(spark, str(tmp_path / "scores"))
    create(table, TABLES["scores"])
    table.set_properties({"delta.enableDeletionVectors": "true"})
    with pytest.raises(ConfigError, match=r"scores needs Delta reader version 3 .*deletionVectors.*DROP FEATURE"):
        create(table, TABLES["scores"])


def test_feature_that_a_session_forces_on_new_tables_is_told(spark, tmp_path):
    with (
        session_defaults(spark, feature__deletionVectors="supported"),
        pytest.raises(ConfigError, match=r"reader version 3 .*for new tables unset what the session has under spark"),
    ):
        create(Table(spark, str(tmp_path / "scores")), TABLES["scores"])


@pytest.mark.parametrize(
    ("columns", "wrong"),
    [
        ("query_id string, passage_id string, query string", "it lacks score;"),
        ("query_id int, passage_id string", "it has query_id int and not string"),
    ],
)
def test_table_of_a_stranger_stays_as_it_is(columns, wrong, spark, tmp_path):
    table = Table(spark, str(tmp_path / "scores"))
    spark.createDataFrame([], columns).write.format("delta").save(table.location)
    with pytest.raises(ConfigError, match=f"is none of the engine's: .*{wrong}.*Nothing in it was changed"):
        create(table, TABLES["scores"])
    assert table.latest_version() == 0
