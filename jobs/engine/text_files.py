"""Reads CSV, TSV and JSON Lines files strictly: columns by name, as strings, and rows at fault told by file and line.

Spark splits the lines, whatever the file system and its size, and they come to one task per file in their order. A
Zstandard file, which Hadoop cannot unpack, is held whole, packed, by a task.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from cluster.session import task_slots
from jobs.engine.chunked_run import say
from jobs.engine.files import STRICT, InputFile, Listing, escaped
from jobs.engine.limits import with_settings
from jobs.engine.locations import asked
from mkdm.columns import ROW_FAULT
from mkdm.errors import ConfigError, InputError
from udfs.files import FACTS, FILE, LINE, FileFacts, TextFile, facts_of, rows_of, unpacked

CsvEscape = Literal["auto", "doubled", "backslash", "none"]
MOST_PACKED = 2**30
"""Bytes of a Zstandard file at most."""
LINES_PER_BATCH = 256
"""Lines that a Python worker is given at once while files are looked through."""
_ARROW_ROWS, _ARROW_BYTES = "spark.sql.execution.arrow.maxRecordsPerBatch", "spark.sql.execution.arrow.maxBytesPerBatch"


@dataclass(frozen=True)
class FileOptions:
    """What the user tells of files.

    Attributes:
        columns: names joined by commas, of CSV and TSV files without a header; None for files with one.
        csv_escape: how CSV and TSV files write a quote within a quoted field; auto looks at each file.

    Raises:
        ConfigError: a name that is empty or there twice.
    """

    columns: str | None = None
    csv_escape: CsvEscape = "auto"

    def __post_init__(self) -> None:
        if self.columns is not None and (not all(self.names) or len(set(self.names)) < len(self.names)):
            raise ConfigError(f"--columns is {self.columns!r}; it takes different names, joined by commas")

    @property
    def names(self) -> tuple[str, ...]:
        """The columns, one by one."""
        return tuple(name.strip() for name in self.columns.split(",")) if self.columns is not None else ()

    def suffix(self, kind: str) -> str:
        """What of them decides what is read, for the version of an input."""
        told = [self.columns or "", self.csv_escape if self.csv_escape != "auto" else ""]
        return "".join(f"-{part}" for part in told if part) if kind in ("csv", "tsv") else ""


@dataclass(frozen=True)
class TextRows:
    """Rows of text files.

    Attributes:
        rows: the columns, all strings; and ROW_FAULT, `code: message` of a row at fault, if there is one.
        faults: how many rows are at fault.
        first_fault: what is wrong with the first of them; empty if there is none.
    """

    rows: DataFrame
    faults: int = 0
    first_fault: str = ""


def read_text_files(spark: SparkSession, listing: Listing, options: FileOptions) -> TextRows:
    """Read the files of a listing; one pass looks through them first, for columns, faults and how quotes are written.

    Raises:
        InputError: a file cannot be read as what it is, or has other columns than the others; says which.
    """
    files = {file.path: _text_file(listing, file, options) for file in listing.files if file.size}
    empty = [file.name for file in listing.files if not file.size]
    if empty:
        say(f"{listing.location}: {counted(len(empty), 'file')} of no byte, such as {empty[0]}")
    facts = _facts(spark, listing, files)
    chosen = {path: _quotes(files[path], found, options) for path, found in facts.items()}
    again = {path: replace(files[path], quotes=quotes) for path, quotes in chosen.items() if quotes}
    for path, found in _facts(spark, listing, again).items() if again else ():
        before = facts[path]
        if found.faults < before.faults or (not before.signs.backslashes and found.faults == before.faults):
            files[path], facts[path] = again[path], found
    for path, found in sorted(facts.items()):
        if found.refusal:
            raise InputError(f"{listing.location}: {found.refusal}")
        _require_no_other_quotes(files[path], found, options)
    columns = _columns(listing, files, facts)
    first = next((found.first_fault for _, found in sorted(facts.items()) if found.first_fault), "")
    if not columns:
        raise InputError(f"{listing.location} has no row: {first.partition(': ')[2] or 'it is empty'}")
    faults, blank = (sum(getattr(found, name) for found in facts.values()) for name in ("faults", "blank"))
    if blank:
        say(f"{listing.location}: {counted(blank, 'empty line')} left out")
    partitions = listing.partition_columns()
    wanted = (*(name for name in columns if name not in partitions), *partitions, *([ROW_FAULT] if faults else []))
    alike = [name for name in wanted if sum(name.lower() == other.lower() for other in wanted) > 1]
    if alike:
        raise InputError(f"{listing.location} has the columns {' and '.join(alike)}, which Spark cannot tell apart")
    schema = ", ".join(f"`{name.replace('`', '``')}` string" for name in wanted)
    parts = [lines.mapInArrow(rows_of(files, wanted), schema) for lines in _lines(spark, listing)]
    rows = parts[0] if len(parts) == 1 else parts[0].unionByName(parts[1])
    return TextRows(rows, faults, first.partition(": ")[2])


def _text_file(listing: Listing, file: InputFile, options: FileOptions) -> TextFile:
    quotes = options.csv_escape
    if quotes == "auto":
        quotes = "none" if listing.kind == "tsv" else "doubled"
    return TextFile(file.name, listing.kind, options.names, quotes, file.partitions)


def _lines(spark: SparkSession, listing: Listing) -> list[DataFrame]:
    """(file, line) of the files, each file's in order in one task: of those that Spark unpacks, and of the others."""
    found = []
    zstandard = [file for file in listing.files if _by_us(file)]
    plain_files = [file for file in listing.files if not _by_us(file)]
    path = path_column().alias(FILE)
    if plain_files:
        text = spark.read.options(**STRICT).text([escaped(file.path) for file in plain_files], lineSep="\n")
        numbered = text.select(
            path,
            F.col("value").cast("binary").alias(LINE),
            F.col("_metadata.file_block_start").alias("block"),
            F.monotonically_increasing_id().alias("number"),
        )
        tasks = min(len(plain_files), 4 * task_slots(spark))
        in_order = numbered.repartition(tasks, FILE).sortWithinPartitions(FILE, "block", "number")
        found.append(in_order.select(FILE, LINE))
    if zstandard:
        large = [file.name for file in zstandard if file.size > MOST_PACKED]
        if large:
            raise InputError(f"{large[0]} has more than {MOST_PACKED // 2**20} MiB: cut it into several, or use .gz")
        content = spark.read.format("binaryFile").options(**STRICT).load([escaped(file.path) for file in zstandard])
        found.append(content.select(path, "content").mapInArrow(unpacked, f"{FILE} string, {LINE} binary"))
    return found


def _by_us(file: InputFile) -> bool:
    """Whether Hadoop has no codec for a file that is packed."""
    return file.path.lower().endswith(".zst")


def path_column() -> Column:
    """The path of a row's file, as `jobs.engine.files.plain` makes it of a URI."""
    uri = F.regexp_replace("_metadata.file_path", "^file:/+", "file:/")
    return F.url_decode(F.regexp_replace(uri, r"\+", "%2B"))


@contextmanager
def small_batches(spark: SparkSession, rows: int | None = LINES_PER_BATCH, size: int | None = None) -> Iterator[None]:
    """Give Python workers few rows at once, or few bytes: some rows are of megabytes.

    Args:
        rows: at most; None leaves the session's own number.
        size: bytes at most, but one row at least; None leaves the session's own number.
    """
    wanted = {name: str(most) for name, most in ((_ARROW_ROWS, rows), (_ARROW_BYTES, size)) if most is not None}
    with with_settings(spark, wanted):
        yield


def _facts(spark: SparkSession, listing: Listing, files: dict[str, TextFile]) -> dict[str, FileFacts]:
    some = replace(listing, files=tuple(file for file in listing.files if file.path in files))
    with small_batches(spark):
        told = [
            row
            for lines in _lines(spark, some)
            for row in asked(listing.location, lines.mapInArrow(facts_of(files), FACTS).collect)
        ]
    return {row[0]: FileFacts.read(row[1]) for row in told}


def _quotes(file: TextFile, found: FileFacts, options: FileOptions) -> Literal["backslash"] | None:
    """Backslash, where a CSV file tells that its quotes are written so; Spark's own writer does, unless told not to."""
    signs = found.signs
    if options.csv_escape != "auto" or file.kind != "csv" or signs.doublings:
        return None
    by_spark = file.name.rpartition("/")[2].startswith("part-")
    likely = by_spark and signs.pairs_of_backslashes and not signs.single_backslashes
    return "backslash" if signs.backslashes or likely else None


def _require_no_other_quotes(file: TextFile, found: FileFacts, options: FileOptions) -> None:
    if file.kind == "tsv" and options.csv_escape == "auto" and not file.columns and found.signs.doublings:
        raise InputError(
            f"{file.name} may quote its fields, as .csv does, or have quotes in its texts: say which with "
            f"--csv-escape doubled, backslash or none"
        )


def _columns(listing: Listing, files: dict[str, TextFile], facts: dict[str, FileFacts]) -> tuple[str, ...]:
    """The columns of all files: of JSON Lines all names, of the others those of every file's header."""
    if listing.kind == "json":
        return tuple(dict.fromkeys(name for _, found in sorted(facts.items()) for name in found.columns))
    headers = {path: found.columns for path, found in facts.items() if found.columns}
    if not headers:
        return ()
    often = Counter(frozenset(header) for header in headers.values())
    usual = max(often, key=lambda names: (often[names], sorted(names)))
    like = next(path for path, header in sorted(headers.items()) if frozenset(header) == usual)
    for path, header in sorted(headers.items()):
        if frozenset(header) != usual:
            raise InputError(
                f"{files[path].name} has the columns {', '.join(header)}, and {files[like].name} has "
                f"{', '.join(headers[like])}: they must be the same, in any order"
            )
    return tuple(headers[like])


def counted(number: int, what: str) -> str:
    """A number of things in words, such as 2 rows."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"
