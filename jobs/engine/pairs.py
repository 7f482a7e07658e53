"""Reads the pairs of a job at a pinned version, from a Delta table or from a file, and checks that they are pairs."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.functions import col
from pyspark.sql.types import IntegralType, StringType

from jobs.engine.schemas import PASSAGES_AT
from jobs.engine.table import Table
from mkdm.columns import PAIR, PAIR_KEY, PASSAGE, PASSAGE_ID
from mkdm.errors import InputError

_FORMATS = {".csv": "csv", ".jsonl": "json", ".ndjson": "json", ".json": "json", ".parquet": "parquet"}


@dataclass(frozen=True)
class PinnedPairs:
    """Pairs as they stood at one version.

    Attributes:
        rows: query_id, passage_id, query, passage, all strings.
        version: what was pinned: `<table id>@<Delta version>`, or a hash of the files' names, sizes and times.
        keys: the rows before their passages were joined, where that is so.
    """

    table: Table
    rows: DataFrame
    version: str
    keys: DataFrame | None = None

    @property
    def delta_version(self) -> int:
        """The pinned version of a Delta table.

        Raises:
            InputError: the pairs are files.
        """
        _, _, number = self.version.partition("@")
        if not number:
            raise InputError(f"--incremental follows the change feed of a Delta table, {self.table.location} is a file")
        return int(number)

    def count(self) -> int:
        """How many rows.

        Raises:
            InputError: there is none.
        """
        count = (self.rows if self.keys is None else self.keys).count()
        if count == 0:
            raise InputError(f"{self.table.location} has no row: there is nothing to score")
        return count


def read_pairs(
    spark: SparkSession, table: Table, version: int | None, keep_if_there: tuple[str, ...] = ()
) -> PinnedPairs:
    """Read pairs from a Delta table, or from a Parquet, CSV or JSON Lines file or a folder of them.

    Args:
        version: the Delta version to pin; None pins the newest. Files have none.
        keep_if_there: columns to keep besides those of a pair.

    Raises:
        InputError: nothing there, a column missing or of the wrong type, or no such version.
    """
    keys, pinned = read_pinned(spark, table, version, "--pairs-version")
    rows = with_passages(keys, table)
    keep = tuple(name for name in keep_if_there if name in rows.columns)
    return PinnedPairs(table, check_pairs(rows, table.location, keep), pinned, None if rows is keys else keys)


def with_passages(pairs: DataFrame, table: Table) -> DataFrame:
    """The pairs with the texts of their passages, which `build-pairs` keeps once each, in `passages`.

    A passage's id is made of its text, so that it never changes. A pair whose passage is there no more, as in a version
    of the pairs from before a build took it out, has none, and is rejected as such by what scores it.

    Args:
        pairs: rows of a pairs table, which are returned as they are if they have the column passage.
        table: the table that they are of.

    Returns:
        The columns of the pairs, and passage.
    """
    if PASSAGE in pairs.columns or is_file(table) or not table.exists():
        return pairs
    where = table.properties().get(PASSAGES_AT)
    if where is None:
        return pairs
    texts = Table(table.spark, where or table.sibling("passages").location).read().select(PASSAGE_ID, PASSAGE)
    return pairs.join(texts, PASSAGE_ID, "left")


def read_pinned_pairs(spark: SparkSession, table: Table, version: int | None) -> tuple[DataFrame, str]:
    """Pairs with the columns that they have, texts of passages included, and what was pinned; see `read_pinned`."""
    rows, pinned = read_pinned(spark, table, version, "--pairs-version")
    return with_passages(rows, table), pinned


def read_pinned(spark: SparkSession, table: Table, version: int | None, flag: str) -> tuple[DataFrame, str]:
    """Read a Delta table or files, with the columns that they have; see `read_pairs`.

    Args:
        flag: the one that `version` comes from.

    Returns:
        The rows, and what was pinned, as in `PinnedPairs.version`.

    Raises:
        InputError: nothing there, or no such version.
    """
    kind = _file_format(table.location)
    if kind is None:
        pinned = table.latest_version() if version is None and table.exists() else version
        rows = table.read(pinned)
        return rows, f"{table.table_id()}@{pinned}"
    if version is not None:
        raise InputError(f"{flag} {version} is for Delta tables, {table.location} is a {kind} file: leave it out")
    return _read_files(spark, table.location, kind), _files_version(spark, table.location)


def is_file(table: Table) -> bool:
    """Whether the location is that of files, by its ending, and not of a Delta table."""
    return _file_format(table.location) is not None


def check_pairs(rows: DataFrame, where: str, keep: tuple[str, ...] = ()) -> DataFrame:
    """Check names and types; the columns of a pair in their order, ids cast to strings, then those of `keep`.

    Raises:
        InputError: says which columns are missing or of which wrong type, and what is there.
    """
    require_columns(rows, PAIR, where)
    for name in PAIR:
        kind = rows.schema[name].dataType
        is_id = name in PAIR_KEY
        if not (isinstance(kind, StringType) or (is_id and isinstance(kind, IntegralType))):
            wanted = "string or integer" if is_id else "string"
            raise InputError(f"column {name} of {where} is {kind.simpleString()}; it must be {wanted}")
    return rows.select([col(name).cast("string") for name in PAIR] + [col(name) for name in keep])


def require_columns(rows: DataFrame, needed: tuple[str, ...], where: str) -> None:
    """Check that an input has its columns.

    Raises:
        InputError: says which are missing, and what is there.
    """
    missing = [name for name in needed if name not in rows.columns]
    if missing:
        raise InputError(f"{where} lacks the columns {', '.join(missing)}; it has {', '.join(rows.columns)}")


def _file_format(location: str) -> str | None:
    return _FORMATS.get(Path(location).suffix.lower())


def _read_files(spark: SparkSession, path: str, kind: str) -> DataFrame:
    reader = spark.read
    if kind == "csv":  # texts hold commas, quotes and line ends: RFC 4180
        reader = reader.options(header=True, multiLine=True, escape='"')
    try:
        return reader.format(kind).load(path)
    except AnalysisException as error:
        raise InputError(f"cannot read {path} as {kind}: {str(error).splitlines()[0]}") from error


def _files_version(spark: SparkSession, path: str) -> str:
    jvm = spark._jvm
    hadoop_path = jvm.org.apache.hadoop.fs.Path(path)  # type: ignore[union-attr]
    system = hadoop_path.getFileSystem(spark._jsparkSession.sessionState().newHadoopConf())
    files = system.listStatus(hadoop_path)
    listed = sorted(f"{file.getPath().getName()} {file.getLen()} {file.getModificationTime()}" for file in files)
    return "files-" + hashlib.sha256("\n".join(listed).encode()).hexdigest()[:16]
