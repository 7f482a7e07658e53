"""Tells what a location means, by what is there: a name in a catalog, a Delta table in a folder, or files."""

import re
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import TypeVar

from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from cluster.connect import is_connect
from cluster.storage import FsspecStorage, Storage
from jobs.engine.faults import FOREIGN, told
from mkdm.errors import ConfigError, InputError

T = TypeVar("T")
NAME_PART = r"(?:\w+|`(?:[^`]|``)+`)"
"""A part of a name, as SQL takes it: letters, digits and underscores, or anything between backticks."""
_SCHEMA_NAME = re.compile(rf"{NAME_PART}\.{NAME_PART}")
_TABLE_NAME = re.compile(rf"{NAME_PART}(?:\.{NAME_PART}){{1,2}}")
_ENDINGS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
    ".parquet": "parquet",
}
PACKED = (".gz", ".bz2", ".zst")


def file_kind(name: str) -> str | None:
    """csv, tsv, json or parquet, by the ending of a file's name, packed or not; None for another one."""
    path = PurePosixPath(name.lower())
    if path.suffix in PACKED:
        kind = _ENDINGS.get(PurePosixPath(path.stem).suffix)
        return None if kind == "parquet" else kind
    return _ENDINGS.get(path.suffix)


def names_table(spark: SparkSession, location: str) -> bool:
    """Whether a location is the name of a table in a catalog. Without backticks, a folder or file of that name is none.

    Raises:
        ConfigError: there are both.
    """
    if _TABLE_NAME.fullmatch(location) is None:
        return False
    if "`" in location:
        return True
    there = exists(spark, location)
    if not there and file_kind(location) is None:
        return True
    return _chosen(spark.catalog.tableExists, location, there, "table")


def names_schema(spark: SparkSession, root: str) -> bool:
    """Whether the place of a warehouse is CATALOG.SCHEMA. Without backticks, a folder of that name is none.

    Raises:
        ConfigError: there are both.
    """
    if _SCHEMA_NAME.fullmatch(root) is None:
        return False
    if "`" in root or not exists(spark, root):
        return True
    return _chosen(spark.catalog.databaseExists, root, True, "schema")


def _chosen(exists_in_catalog: Callable[[str], bool], location: str, there: bool, what: str) -> bool:
    try:
        named = exists_in_catalog(quoted(location))
    except PySparkException:  # such as a catalog that is not there
        named = False
    if named and there:
        raise ConfigError(
            f"{location} is both a {what} of the catalog and a folder or file: write {quoted(location)} for the "
            f"{what}, ./{location} for the other"
        )
    return named


def quoted(name: str) -> str:
    """A name in a catalog with each part in backticks."""
    return ".".join(part if part[0] == "`" else f"`{part}`" for part in re.findall(NAME_PART, name))


def storage_of(spark: SparkSession) -> Storage:
    """The storage as that session finds it: Hadoop's, or over Spark Connect this machine's, by fsspec."""
    if is_connect(spark):
        return FsspecStorage()
    from cluster.classic import HadoopStorage

    return HadoopStorage(spark)


def qualified(spark: SparkSession, location: str) -> str:
    """A location as a full URI."""
    return asked(location, lambda: storage_of(spark).qualified(location))


def exists(spark: SparkSession, location: str) -> bool:
    """Whether a folder or file of that name is there."""
    return asked(location, lambda: storage_of(spark).exists(location))


def has_delta_log(spark: SparkSession, location: str) -> bool:
    """Whether a folder is that of a Delta table, whatever its name ends in."""
    storage = storage_of(spark)

    def found() -> bool:
        there = storage.exists(location) and storage.entry(location).is_folder  # HDFS fails below a file
        return there and storage.exists(f"{location.rstrip('/')}/_delta_log")

    return asked(location, found)


def asked(location: str, ask: Callable[[], T]) -> T:
    """What a file system answers.

    Raises:
        InputError: it has no answer; says why, on one line.
    """
    try:
        return ask()
    except OSError as error:  # of fsspec
        raise InputError(f"cannot read {location}: {error.strerror or error}") from error
    except FOREIGN as error:
        raise InputError(f"cannot read {location}: {told(error)}") from error
