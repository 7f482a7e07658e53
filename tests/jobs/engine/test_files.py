"""Which files an input is, and that what is pinned is what is read."""

import os
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.engine.files import hashed, list_files, require_unchanged
from jobs.engine.ledger import Ledger
from jobs.engine.pairs import is_file, read_pairs, read_pinned
from jobs.engine.table import Table
from jobs.engine.warehouse import Warehouse
from jobs.score import ScoreConfig, run
from mkdm.errors import ConfigError, InputError, RunFailedError

HEADER = "query_id,passage_id,query,passage\n"


def line(query_id, passage_id="1", passage="A gasket is a seal."):
    return f"{query_id},{passage_id},what is a gasket,{passage}\n"


def write(path, *ids):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(HEADER + "".join(map(line, ids)))
    return path


def ids(spark, place):
    """The query_ids that are read, and what was pinned."""
    pairs = read_pairs(spark, Table(spark, str(place)), None)
    return sorted(row.query_id for row in pairs.rows.collect()), pairs.version


def version(spark, place):
    return hashed(spark, list_files(spark, str(place))).version


def test_folders_below_are_read_and_hashed(spark, tmp_path, capsys):
    root = tmp_path / "pairs.csv"
    write(root / "part.csv", "1")
    write(root / "a" / "b c" / "part.csv", "2")
    below = write(root / "day=1" / "part.csv", "3")
    write(root / "_hidden.csv", "4")
    write(root / ".also" / "x.csv", "5")
    (root / "_SUCCESS").touch()
    found, before = ids(spark, root)
    assert found == ["1", "2", "3"]
    assert "left out as hidden: .also, _hidden.csv" in capsys.readouterr().err
    status = below.stat()
    below.write_text(below.read_text().replace("seal", "ring"))  # as long, and as old
    os.utime(below, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert ids(spark, root)[1] != before
    with pytest.raises(InputError, match="changed while it was read"):
        require_unchanged(spark, str(root), before)


@pytest.mark.parametrize(
    "name", ["pairs[1].csv", "a b%20c#d,é+.csv", "x{1}?*.csv", "back\\slash.csv", "no=thing&.csv", "UPPER.CSV"]
)
def test_a_name_is_taken_by_its_letters(spark, tmp_path, name):
    write(tmp_path / "pairs1.csv", "wrong")
    write(tmp_path / name, "right")
    assert ids(spark, tmp_path / name)[0] == ["right"]


def test_names_in_folders_of_parquet(spark, tmp_path):
    for number, name in enumerate(["p[1].parquet", "ö %41,#.parquet"]):
        table = pa.table({"query_id": [number], "passage_id": [1], "query": ["q"], "passage": ["p"]})
        pq.write_table(table, tmp_path / name)
    folder = shutil.copytree(tmp_path, tmp_path.parent / "all {of} them.parquet")
    assert ids(spark, folder)[0] == ["0", "1"]


def test_a_pattern_where_no_file_has_that_name(spark, tmp_path):
    write(tmp_path / "part-1.csv", "1")
    write(tmp_path / "part-2.csv", "2")
    write(tmp_path / "part-x.csv" / "deep" / "y.csv", "3")
    write(tmp_path / "other.csv", "4")
    assert ids(spark, tmp_path / "part-*.csv")[0] == ["1", "2", "3"]
    assert ids(spark, tmp_path / "part-[12].csv")[0] == ["1", "2"]
    with pytest.raises(InputError, match=r"cannot read .*nothing-.*csv as csv: nothing is there"):
        ids(spark, tmp_path / "nothing-*.csv")
    write(tmp_path / "part-*.csv", "star")
    assert ids(spark, tmp_path / "part-*.csv")[0] == ["star"]


def test_what_cannot_be_read_is_one_line(spark, tmp_path):
    for place, words in [
        (write(tmp_path / "a:b.csv", "1"), "has a colon in its name"),
        (write(tmp_path / "_x.csv", "1"), "begins with _ or a dot"),
        ("nosuch://bucket/x.csv", "cannot read nosuch://bucket/x.csv: .*nosuch"),
    ]:
        with pytest.raises(InputError, match=words):
            ids(spark, place)
    folder = tmp_path / "f.csv"
    write(folder / "a.csv", "1")
    (folder / "b.csv").symlink_to(tmp_path / "nowhere.csv")
    with pytest.raises(InputError, match=r"b\.csv is a link to nothing"):
        ids(spark, folder)
    (folder / "b.csv").unlink()
    (folder / "c").symlink_to(folder)
    with pytest.raises(InputError, match="is a link to a folder that it lies in"):
        ids(spark, folder)
    (folder / "c").unlink()
    (folder / "d.csv").symlink_to(write(tmp_path / "linked.csv", "2"))
    assert ids(spark, folder)[0] == ["1", "2"]
    (folder / "e.parquet").touch()
    with pytest.raises(InputError, match=r"is read as csv, and has the file e\.parquet"):
        ids(spark, folder)
    (folder / "e.parquet").unlink()
    (folder / ".a.csv.crc").write_bytes(b"crc\0\0\0\2\0\0\0\0\0")  # as of another a.csv
    with pytest.raises(InputError, match=r"cannot read .*a\.csv"):
        ids(spark, folder)


@pytest.mark.parametrize("kind", ["csv", "parquet", "jsonl"])
def test_ids_of_partition_folders_stay_as_written(spark, tmp_path, kind):
    root = tmp_path / f"pairs.{kind}"
    for value in ("007", "7", "a%3Ab", "__HIVE_DEFAULT_PARTITION__"):
        folder = root / f"query_id={value}" / "more"
        folder.mkdir(parents=True)
        if kind == "csv":
            (folder / "p.csv").write_text("passage_id,query,passage\n1,q,p\n")
        elif kind == "jsonl":
            (folder / "p.jsonl").write_text('{"passage_id": 1, "query": "q", "passage": "p"}\n')
        else:
            pq.write_table(pa.table({"passage_id": ["1"], "query": ["q"], "passage": ["p"]}), folder / "p.parquet")
    found = {row.query_id for row in read_pairs(spark, Table(spark, str(root)), None).rows.collect()}
    assert found == {"007", "7", "a:b", None}
    pattern = str(root / "query_id=0*" / "more" / f"*.{kind}")
    assert [row.query_id for row in read_pairs(spark, Table(spark, pattern), None).rows.collect()] == ["007"]


def test_char_columns_are_not_padded(spark, tmp_path):
    spark.sql("CREATE TABLE chars (query_id CHAR(5), passage_id CHAR(9), query STRING, passage STRING) USING delta")
    try:
        spark.sql("INSERT INTO chars VALUES ('a', 'b c', 'q ', 'p ')")
        where = spark.sql("DESCRIBE DETAIL chars").first()["location"]
        for place in ("default.chars", where):
            (row,) = read_pairs(spark, Table(spark, place), None).rows.collect()
            assert tuple(row) == ("a", "b c", "q ", "p ")
            (row,) = read_pinned(spark, Table(spark, place), None, "")[0].collect()
            assert row.query_id == "a"
    finally:
        spark.sql("DROP TABLE chars")


def test_whole_numbers_as_ids(spark, tmp_path):
    from decimal import Decimal

    large = 2**64 - 1
    table = pa.table(
        {
            "query_id": pa.array([large], pa.uint64()),
            "passage_id": pa.array([Decimal(10**37)], pa.decimal128(38, 0)),
            "query": ["q"],
            "passage": ["p"],
        }
    )
    pq.write_table(table, tmp_path / "pairs.parquet")
    (row,) = read_pairs(spark, Table(spark, str(tmp_path / "pairs.parquet")), None).rows.collect()
    assert tuple(row)[:2] == (str(large), str(10**37))
    fractions = table.set_column(0, "query_id", pa.array([Decimal("1.50")], pa.decimal128(10, 2)))
    pq.write_table(fractions, tmp_path / "pairs.parquet")
    with pytest.raises(InputError, match=r"column query_id of .* is decimal\(10,2\); it must be string or integer"):
        read_pairs(spark, Table(spark, str(tmp_path / "pairs.parquet")), None)


PAIRS = "query_id string, passage_id string, query string, passage string"


def test_a_delta_table_whatever_its_name_ends_in(spark, tmp_path):
    for name in ("x.parquet", "x.csv", "x.jsonl"):
        table = Table(spark, str(tmp_path / name))
        table.overwrite(spark.createDataFrame([("old", "1", "q", "p")], PAIRS))
        table.overwrite(spark.createDataFrame([("new", "1", "q", "p")], PAIRS))
        assert not is_file(table)
        found, pinned = ids(spark, table.location)
        assert found == ["new"]
        assert pinned.endswith("@1")
    with pytest.raises(InputError, match=r"x\.parquet is a Delta table among files"):
        ids(spark, tmp_path / "*.parquet")


def test_a_relative_folder_is_no_name_of_a_catalog(spark, tmp_path, monkeypatch):
    here = Path("build") / tmp_path.name  # Spark's working folder is the one that its JVM was started in
    name = f"delta_{os.getpid()}.table"
    try:
        Table(spark, f"./{name}").overwrite(spark.createDataFrame([("in a folder", "1", "q", "p")], PAIRS))
        assert not Table(spark, name).in_catalog
        assert ids(spark, name)[0] == ["in a folder"]
        assert Warehouse(spark, name).table("pairs").location == f"{name}/pairs"
        assert Table(spark, f"nothing_{name}").in_catalog
        assert Warehouse(spark, f"nothing_{name}").table("pairs").in_catalog
        schema, _, table = name.partition(".")
        spark.sql(f"CREATE SCHEMA {schema}")
        spark.createDataFrame([("in a catalog", "1", "q", "p")], PAIRS).write.format("delta").saveAsTable(name)
        with pytest.raises(ConfigError, match=rf"is both a table.*write `{schema}`.`{table}` for the table, ./{name}"):
            ids(spark, name)
        assert ids(spark, f"`{schema}`.`{table}`")[0] == ["in a catalog"]
        assert ids(spark, f"./{name}")[0] == ["in a folder"]
    finally:
        spark.sql(f"DROP SCHEMA IF EXISTS {name.partition('.')[0]} CASCADE")
        shutil.rmtree(name, ignore_errors=True)
        shutil.rmtree(here, ignore_errors=True)


def test_a_table_of_a_catalog_that_is_called_csv(spark, tmp_path):
    spark.sql("CREATE SCHEMA IF NOT EXISTS qa")
    try:
        spark.createDataFrame([("1", "1", "q", "p")], PAIRS).write.format("delta").saveAsTable("qa.csv")
        assert Table(spark, "qa.csv").in_catalog
        assert ids(spark, "qa.csv")[0] == ["1"]
        assert is_file(Table(spark, "qa.jsonl"))
    finally:
        spark.sql("DROP SCHEMA qa CASCADE")


def test_a_folder_of_files_of_one_kind(spark, tmp_path):
    write(tmp_path / "export" / "a.csv", "1")
    assert ids(spark, tmp_path / "export")[0] == ["1"]
    (tmp_path / "export" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"no Delta table at .*export"):
        ids(spark, tmp_path / "export")


@pytest.mark.parametrize("chunks", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_file_that_changes_in_mid_run_is_noticed(spark, warehouse, student_folder, tmp_path, monkeypatch, chunks):
    path = write(tmp_path / "pairs.csv", "1", "2", "3")
    config = ScoreConfig(
        model=student_folder, warehouse=warehouse.root, pairs=str(path), precision="fp32", chunks=chunks
    )
    before, start = path.read_text(), Ledger.start

    def rewrite(*args):
        path.write_text(before.replace("seal", "ring"))
        return start(*args)

    with monkeypatch.context() as patched:
        patched.setattr(Ledger, "start", rewrite)
        with pytest.raises(RunFailedError, match=r"pairs\.csv changed while it was read"):
            run(spark, config)
    assert warehouse.table("scores").read().isEmpty()
    path.write_text(before)
    assert run(spark, config).totals.rows_written == 3
    hashes = warehouse.table("scores").read().select("content_hash").distinct().collect()
    (expected,) = spark.sql("SELECT xxhash64('what is a gasket', 'A gasket is a seal.')").first()
    assert [row.content_hash for row in hashes] == [expected], "nothing of what was read of the other content is left"
