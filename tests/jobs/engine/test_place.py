"""A table's place, by path or by name, as SQL writes it."""

import hashlib

import pytest

from cluster.storage import Entry, FsspecStorage
from jobs.engine import storage_of
from jobs.engine.locations import names_schema
from jobs.engine.place import Place, literal
from mkdm.errors import ConfigError


@pytest.mark.parametrize(
    ("location", "in_catalog", "sibling"),
    [
        ("main.qa.pairs", True, "main.qa.scores"),
        ("qa.pairs", True, "qa.scores"),
        ("main.`q.a`.pairs", True, "main.`q.a`.scores"),
        ("warehouse/pairs", False, "warehouse/scores"),
        ("s3a://bucket/w/pairs/", False, "s3a://bucket/w/scores"),
        ("pairs", False, "./scores"),
    ],
)
def test_a_sibling_is_in_the_same_folder_or_schema(spark, location, in_catalog, sibling):
    place = Place(spark, location)
    assert place.in_catalog == in_catalog
    assert place.sibling("scores") == Place(spark, sibling)


def test_names_in_a_catalog_are_quoted_part_by_part(spark):
    assert Place(spark, "main.`q.a`.pairs").sql_name == "`main`.`q.a`.`pairs`"


def test_a_folder_with_a_backtick_is_refused(spark):
    with pytest.raises(ConfigError, match="backtick"):
        Place(spark, "ware`house/pairs")


def test_a_literal_cannot_be_left():
    assert literal("it's \\ all") == r"'it\'s \\ all'"


@pytest.mark.parametrize(("root", "yes"), [("main.qa", True), ("main.`q a`", True), ("main", False), ("./w", False)])
def test_a_schema_is_told_from_a_folder(spark, root, yes):
    assert names_schema(spark, root) == yes


def test_fsspec_tells_of_files_what_hadoop_tells(spark, tmp_path):
    """What jobs over Spark Connect ask, and what they ask of Hadoop where a session has a JVM."""
    for name in ("a/one.csv", "a/.hidden", "b c%20/two.tsv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "links").mkdir()
    for name, target in (("to_file.csv", "a/one.csv"), ("to_folder", "a"), ("to_nothing", "nowhere")):
        (tmp_path / "links" / name).symlink_to(tmp_path / target)
    for storage in (FsspecStorage(), storage_of(spark)):
        root = storage.qualified(f"{tmp_path}//")
        assert root == f"file:{tmp_path}"
        assert storage.entry(str(tmp_path)).is_folder
        assert storage.entry(f"{tmp_path}/a/one.csv") == Entry(f"{root}/a/one.csv", False, 9)
        names = {entry.path: entry.size for entry in storage.children(f"{root}/a")}
        assert names == {f"{root}/a/one.csv": 9, f"{root}/a/.hidden": 9}
        for linked in (storage.children(f"{root}/links"), storage.matches(f"{tmp_path}/links/to_f*")):
            assert {(entry.name, entry.is_folder) for entry in linked} == {("to_file.csv", False), ("to_folder", True)}
        assert next(one.size for one in storage.children(f"{root}/links") if one.name == "to_file.csv") == 9
        assert [entry.path for entry in storage.matches(f"{tmp_path}/[ab]*/*.{{csv,tsv}}")] == [
            f"{root}/a/one.csv",
            f"{root}/b c%20/two.tsv",
        ]
        assert storage.matches(f"{tmp_path}/*.json") == []
        assert storage.sha256(f"{root}/a/one.csv") == hashlib.sha256(b"a/one.csv").hexdigest()
        storage.write_text(f"{tmp_path}/new/x.json", "{}\n")
        assert storage.rename(f"{tmp_path}/new/x.json", f"{tmp_path}/new/y.json")
        assert storage.read_text(f"{root}/new/y.json") == "{}\n"
        assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["y.json"]
        for _ in range(2):
            storage.delete(f"{tmp_path}/new")
            assert not storage.exists(f"{tmp_path}/new")
