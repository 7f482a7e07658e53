"""Reads the pairs of a job at a pinned version, from a Delta table or from files, and checks that they are pairs."""

from typing import Literal

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import DataType, DecimalType, IntegralType, StringType

from jobs.engine.chunked_run import say
from jobs.engine.files import STRICT, Listing, escaped, hashed, is_pattern, list_files
from jobs.engine.locations import asked, exists, file_kind, has_delta_log
from jobs.engine.pinned_pairs import PASSAGES, PinnedPairs
from jobs.engine.schemas import PASSAGES_AT
from jobs.engine.table import Table
from jobs.engine.text_files import FileOptions, TextRows, counted, path_column, read_text_files
from mkdm.columns import BUCKET, PAIR, PAIR_KEY, PASSAGE, PASSAGE_ID, ROW_FAULT
from mkdm.errors import InputError

Faults = Literal["keep", "leave out", "refuse"]
"""Rows of files that are at fault keep their ROW_FAULT; or are left out, and told; or the input is refused."""
_CHAR = "__CHAR_VARCHAR_TYPE_STRING"
"""Where Spark's schemas tell that a string is CHAR(n), which is padded to n characters."""


def read_pairs(
    spark: SparkSession,
    table: Table,
    version: int | None,
    keep_if_there: tuple[str, ...] = (),
    options: FileOptions | None = None,
    faults: Faults = "keep",
) -> PinnedPairs:
    """Read pairs from a Delta table, or from a Parquet, CSV, TSV or JSON Lines file or a folder of them.

    Args:
        version: the Delta version to pin; None pins the newest. Files have none.
        keep_if_there: columns to keep besides those of a pair.
        options: what is told of files.

    Raises:
        InputError: nothing there, a column missing or of the wrong type, or no such version.
    """
    keys, pinned = read_pinned(spark, table, version, "--pairs-version", options, faults)
    passages = passages_of(keys, table)
    at = None
    if passages is not None and passages.exists():  # a past version of the pairs had the passages of that time
        now = version in (None, table.latest_version())
        at = passages.latest_version() if now else passages.version_at(table.made_at(version))  # type: ignore[arg-type]
    rows = keys if passages is None else _with_texts(keys, passages, at)
    keep = tuple(name for name in (*keep_if_there, ROW_FAULT) if name in rows.columns)
    checked = check_pairs(rows, table.location, keep)
    # only a build says where texts are; the log is looked at again only where a column tells of one
    built = passages is not None or (BUCKET in keys.columns and not is_file(table) and table.built())
    if passages is None:
        return PinnedPairs(table, checked, pinned, built=built)
    without = check_pairs(keys.withColumn(PASSAGE, F.lit(None).cast("string")), table.location, keep)
    return PinnedPairs(table, checked, pinned, without, (passages, f"{passages.table_id()}@{at}"), built)


def passages_of(pairs: DataFrame, table: Table) -> Table | None:
    """The table that has the texts of pairs without any; None for pairs that have them, or are files."""
    if PASSAGE in pairs.columns or is_file(table) or not table.exists():
        return None
    where = table.properties().get(PASSAGES_AT)
    return None if where is None else Table(table.spark, where or table.sibling(PASSAGES).location)


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
    passages = passages_of(pairs, table)
    return pairs if passages is None else _with_texts(pairs, passages, None)


def _with_texts(pairs: DataFrame, passages: Table, version: int | None) -> DataFrame:
    return pairs.join(passages.read(version).select(PASSAGE_ID, PASSAGE), PASSAGE_ID, "left")


def read_pinned_pairs(
    spark: SparkSession, table: Table, version: int | None, options: FileOptions | None = None
) -> tuple[DataFrame, str]:
    """Pairs with the columns that they have, texts of passages included, and what was pinned; see `read_pinned`.

    Rows of files that are at fault are left out.
    """
    rows, pinned = read_pinned(spark, table, version, "--pairs-version", options, "leave out")
    return with_passages(rows, table), pinned


def read_pinned(
    spark: SparkSession,
    table: Table,
    version: int | None,
    flag: str,
    options: FileOptions | None = None,
    faults: Faults = "refuse",
) -> tuple[DataFrame, str]:
    """Read a Delta table or files, with the columns that they have; see `read_pairs`.

    Args:
        flag: the one that `version` comes from.
        faults: what becomes of rows of text files that are at fault.

    Returns:
        The rows, and what was pinned, as in `PinnedPairs.version`.

    Raises:
        InputError: nothing there, no such version, files that cannot be read, or rows at fault that are to be refused.
    """
    options = options or FileOptions()
    if not is_file(table):
        if options.columns is not None:
            raise InputError(f"--columns is for .csv and .tsv files, {table.location} is none: leave it out")
        pinned = table.latest_version() if version is None and table.exists() else version
        rows = table.read(pinned)
        return as_written(rows), f"{table.table_id()}@{pinned}"
    kind = file_kind(table.location) or "data"
    if version is not None:
        raise InputError(f"{flag} {version} is for Delta tables, {table.location} is a {kind} file: leave it out")
    listing = hashed(spark, list_files(spark, table.location))
    if listing.hidden:
        say(f"{table.location}: left out as hidden: {', '.join(listing.hidden[:5])}{_more(len(listing.hidden) - 5)}")
    if options.columns is not None and listing.kind not in ("csv", "tsv"):
        raise InputError(f"--columns is for .csv and .tsv files, {table.location} is {listing.kind}: leave it out")
    found = _read_parquet(spark, listing) if listing.kind == "parquet" else read_text_files(spark, listing, options)
    rows = found.rows
    if found.faults:
        first = f"{table.location}: {counted(found.faults, 'row')} at fault, the first: {found.first_fault}"
        if faults == "refuse":
            raise InputError(f"{first}; correct or remove them")
        say(f"{first}; they are left out" if faults == "leave out" else first)
        rows = rows if faults == "keep" else rows.where(F.col(ROW_FAULT).isNull()).drop(ROW_FAULT)
    return rows, listing.version + options.suffix(listing.kind)


def _more(number: int) -> str:
    return f" and {number:,} more" if number > 0 else ""


def is_file(table: Table) -> bool:
    """Whether the location is that of files: a file or folder whose name ends as theirs, or a folder of such files.

    A folder with a Delta log is a table, whatever its name ends in.
    """
    if table.in_catalog:
        return False
    kind, there = file_kind(table.location.rstrip("/")), exists(table.spark, table.location)
    if there and has_delta_log(table.spark, table.location):
        return False
    if kind is None and (there or is_pattern(table.location)):
        try:
            return bool(list_files(table.spark, table.location).files)
        except InputError:
            return False
    return kind is not None


def check_pairs(rows: DataFrame, where: str, keep: tuple[str, ...] = ()) -> DataFrame:
    """Check names and types; the columns of a pair in their order, ids cast to strings, then those of `keep`.

    Raises:
        InputError: says which columns are missing or of which wrong type, and what is there.
    """
    require_columns(rows, PAIR, where)
    require_ids(rows, PAIR_KEY, where)
    for name in PAIR:
        kind = rows.schema[name].dataType
        if name not in PAIR_KEY and not isinstance(kind, StringType):
            raise InputError(f"column {name} of {where} is {kind.simpleString()}; it must be string")
    rows = as_written(rows)
    return rows.select([F.col(name).cast("string") for name in PAIR] + [F.col(name) for name in keep])


def require_ids(rows: DataFrame, names: tuple[str, ...], where: str) -> None:
    """Check that columns can be ids: strings or whole numbers, decimals without a fraction included.

    Raises:
        InputError: says which is not, and what it is.
    """
    for name in names:
        kind: DataType = rows.schema[name].dataType
        if not (isinstance(kind, StringType | IntegralType) or (isinstance(kind, DecimalType) and kind.scale == 0)):
            raise InputError(f"column {name} of {where} is {kind.simpleString()}; it must be string or integer")


def require_columns(rows: DataFrame, needed: tuple[str, ...], where: str) -> None:
    """Check that an input has its columns.

    Raises:
        InputError: says which are missing, and what is there.
    """
    missing = [name for name in needed if name not in rows.columns]
    if missing:
        there = ", ".join(name for name in rows.columns if name != ROW_FAULT)
        raise InputError(f"{where} lacks the columns {', '.join(missing)}; it has {there}")


def as_written(rows: DataFrame, table: DataFrame | None = None) -> DataFrame:
    """The rows with CHAR(n) columns as they were before they were padded to n characters.

    Args:
        table: what tells the columns, where the rows have lost that, as in a change feed.
    """
    schema = (rows if table is None else table).schema
    padded = [field.name for field in schema if str(field.metadata.get(_CHAR, "")).startswith("char")]
    return rows.withColumns({name: F.rtrim(F.col(f"`{name}`")) for name in padded}) if padded else rows


def _read_parquet(spark: SparkSession, listing: Listing) -> TextRows:
    """The rows of Parquet files, with the columns that their folders give.

    Raises:
        InputError: a file is no Parquet file, or a column is of several types.
    """
    paths = [escaped(file.path) for file in listing.files]
    partitions = listing.partition_columns()

    def read() -> DataFrame:
        rows = spark.read.options(**STRICT, mergeSchema=True).parquet(*paths)
        rows = _with_partitions(rows, listing, partitions) if partitions else rows
        rows.schema  # noqa: B018  (over Connect it is only now that a file is looked at)
        return rows

    return TextRows(asked(listing.location, read))


def _with_partitions(rows: DataFrame, listing: Listing, partitions: tuple[str, ...]) -> DataFrame:
    """The rows with the columns of `day=1` folders, as strings; a row of no such folder has null there."""
    found = [(file.path, *(file.partitions.get(name) for name in partitions)) for file in listing.files]
    names = [f"_partition_{place}" for place in range(len(partitions))]
    folders = rows.sparkSession.createDataFrame(found, ", ".join(f"{name} string" for name in ("_path", *names)))
    columns: list[Column] = [F.col(f"`{name}`") for name in rows.columns if name not in partitions]
    columns += [F.col(name).alias(column) for name, column in zip(names, partitions, strict=True)]
    joined = rows.withColumn("_path", path_column()).join(F.broadcast(folders), "_path", "left")
    return joined.select(columns)
