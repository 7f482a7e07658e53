"""What a table's log tells, by whichever way it is asked; and that rows are counted in the version that has them."""

import pytest

from cluster.connect import is_connect
from jobs.engine import Table, Warehouse, reading
from jobs.engine.snapshot import snapshot_of
from mkdm.errors import RunFailedError


@pytest.fixture
def table(spark, tmp_path) -> Table:
    """A table of the engine with two versions."""
    table = Warehouse(spark, str(tmp_path / "w")).output("scores")
    table.set_properties({"x.y": "token=1"})
    return table


def rows(spark, number: int):
    return spark.range(number).selectExpr("string(id) AS query_id", "'p' AS passage_id", "float(0.5) AS score")


@pytest.mark.parametrize("in_catalog", [False, True])
def test_log_tells_the_same_by_a_read_and_by_commands(in_catalog, table, spark, monkeypatch):
    if in_catalog:
        spark.sql("CREATE SCHEMA told")
        table = Warehouse(spark, "spark_catalog.told").output("scores")
        table.set_properties({"x.y": "token=1"})
    seen = table.snapshot()
    assert is_connect(spark) or snapshot_of(table.read()) == seen, "without a command"
    monkeypatch.setattr(reading, "snapshot_of", lambda _rows: None)
    assert table.snapshot() == seen
    assert (seen.version, seen.reader_version, seen.properties["x.y"]) == (1, 1, "token=1")
    if in_catalog:
        spark.sql("DROP SCHEMA told CASCADE")


def test_version_of_an_append_is_told_once(table, spark):
    assert table.append(rows(spark, 2), "a") == 2
    other = table.sibling("other")
    assert other.append(rows(spark, 1), "b") == 0
    assert table.append(rows(spark, 2), "a") is None
    assert table.committed("a") == 2


def test_rows_of_a_commit_are_counted_whatever_version_a_session_told(table, spark):
    version = table.append(rows(spark, 2), "a")
    table.append(rows(spark, 3), "b")
    table.verify("a", 2, version)
    table.verify("a", 2)
    table.verify("a", 2, version + 1)
    with pytest.raises(RunFailedError, match=r"version 2 of .* added 2 rows and not 3"):
        table.verify("a", 3, version)
