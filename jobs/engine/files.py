"""Lists the files of an input once: what is listed is hashed, and what is hashed is read. Hidden files are left out."""

import hashlib
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from urllib.parse import unquote

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from cluster.storage import Entry, Storage
from jobs.engine.locations import asked, file_kind, storage_of
from mkdm.errors import InputError

PREFIX = "files-"
"""How the version of an input that is files begins."""
IN_TASKS_FROM = 4 * 2**30
"""Bytes of an input from which its files are hashed in Spark tasks, those of at most MOST_IN_TASK bytes each."""
MOST_IN_TASK = 128 * 2**20
_GLOB = re.compile(r"[\[\]{}*?\\]")
_NO_ROWS = re.compile(r"_SUCCESS|_(?:started|committed)_\d+|\..*\.crc|\.part")
"""Hidden files that writers leave beside their rows, of which nobody wants to be told."""
STRICT = {"ignoreCorruptFiles": "false", "ignoreMissingFiles": "false"}
"""Options of Spark's readers: a file that cannot be read is an error, whatever the session's settings are."""
_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class InputFile:
    """A file of an input.

    Attributes:
        path: absolute, as Hadoop writes it.
        name: below the place that was given; of a single file its name.
        partitions: by column, the value that its folders give it, as it is written there.
        digest: SHA-256 of its bytes, in hex.
    """

    path: str
    name: str
    size: int
    partitions: dict[str, str | None] = field(default_factory=dict)
    digest: str = ""


@dataclass(frozen=True)
class Listing:
    """The files of an input, in order.

    Attributes:
        kind: csv, tsv, json or parquet.
        hidden: names of files that are left out because they begin with _ or a dot.
    """

    location: str
    kind: str
    files: tuple[InputFile, ...]
    hidden: tuple[str, ...] = ()

    @property
    def version(self) -> str:
        """What stands for names and contents of the files."""
        told = "\n".join(f"{file.name} {file.size} {file.digest}" for file in self.files)
        return PREFIX + hashlib.sha256(told.encode()).hexdigest()[:16]

    def partition_columns(self) -> tuple[str, ...]:
        """The columns that folders give, in order."""
        return tuple(dict.fromkeys(name for file in self.files for name in file.partitions))


def list_files(spark: SparkSession, location: str) -> Listing:
    """The files of a file, a folder or a pattern, folders below included; not yet hashed.

    A name that is there is no pattern, whatever characters it has.

    Raises:
        InputError: nothing is there, a file cannot be read, or they are not all of one kind.
    """
    storage = asked(location, lambda: storage_of(spark))
    walk = _Walk(storage)
    if asked(location, lambda: storage.exists(location)):
        entry = asked(location, lambda: storage.entry(location))
        if not entry.is_folder and _is_hidden(entry.name):
            raise InputError(f"the name of {location} begins with _ or a dot, so that Spark leaves it out: rename it")
        base = entry.path.rstrip("/") if entry.is_folder else entry.parent
        files = list(walk.below(entry, f"{base}/"))
    else:
        found = asked(location, lambda: storage.matches(location)) if is_pattern(location) else None
        if not found:
            raise InputError(f"cannot read {location} as {file_kind(location) or 'files'}: nothing is there")
        base = _fixed_part(found[0].path, location)
        files = [file for entry in found for file in walk.below(entry, base, top=True)]
    files = sorted({file.path: file for file in files}.values(), key=lambda file: file.name)
    return Listing(location, _kind_of(location, files, walk.hidden), tuple(files), tuple(sorted(walk.hidden)))


def hashed(spark: SparkSession, listing: Listing) -> Listing:
    """The listing with the hash of each file's bytes: read by the driver, or by tasks where there is much.

    Raises:
        InputError: a file cannot be read.
    """
    known: dict[str, str] = {}
    if sum(file.size for file in listing.files) >= IN_TASKS_FROM:
        small = [file.path for file in listing.files if file.size <= MOST_IN_TASK]
        if small:
            rows = spark.read.format("binaryFile").options(**STRICT).load([escaped(path) for path in small])
            told = rows.select(F.col("_metadata.file_path"), F.sha2("content", 256))
            found = asked(listing.location, told.collect)
            known = {plain(row[0]): row[1] for row in found}
    storage = storage_of(spark)

    def one(file: InputFile) -> InputFile:
        return replace(file, digest=known.get(file.path) or asked(file.path, lambda: storage.sha256(file.path)))

    with ThreadPoolExecutor(8) as pool:
        return replace(listing, files=tuple(pool.map(one, listing.files)))


def require_unchanged(spark: SparkSession, location: str, version: str) -> None:
    """Make sure that an input that is files still is what was pinned; of a table there is nothing to check.

    Raises:
        InputError: a file was changed, added or taken away since.
    """
    if not version.startswith(PREFIX):
        return
    pinned = PREFIX + version.removeprefix(PREFIX).partition("-")[0]
    if hashed(spark, list_files(spark, location)).version != pinned:
        raise InputError(f"{location} changed while it was read: leave its files as they are, and run again")


def is_pattern(location: str) -> bool:
    """Whether a location may be a pattern; it is one where nothing has that name."""
    return _GLOB.search(location) is not None


def escaped(path: str) -> str:
    """A path that Spark takes by its letters, and not for a pattern."""
    return _GLOB.sub(lambda found: f"\\{found[0]}", path)


def plain(uri: str) -> str:
    """The path of a file as `InputFile` has it, from Spark's `_metadata.file_path`."""
    return unquote(re.sub(r"^file:/+", "file:/", uri))


def _is_hidden(name: str) -> bool:
    """What Spark takes for hidden, whoever names it."""
    return name.startswith(".") or (name.startswith("_") and "=" not in name) or name.endswith("._COPYING_")


@dataclass
class _Walk:
    """Goes through folders, and keeps the hidden files that it meets.

    Attributes:
        storage: where they are.
    """

    storage: Storage
    hidden: list[str] = field(default_factory=list)

    def below(self, entry: Entry, base: str, top: bool = False, above: tuple[str, ...] = ()) -> Iterator[InputFile]:
        """The files of a folder, or a file itself.

        Args:
            base: what names are given below; ends in a slash.
            top: whether a hidden name is to be left out here already.
            above: the real places of the local folders above.
        """
        text = entry.path
        name = text.removeprefix(base)
        if top and _is_hidden(entry.name):
            if not _NO_ROWS.fullmatch(entry.name):
                self.hidden.append(name)
        elif entry.is_folder:
            local = "/" + text.removeprefix("file:").lstrip("/") if text.startswith("file:") else None
            if local is not None:
                if os.path.realpath(local) in above:
                    raise InputError(f"{text} is a link to a folder that it lies in: take it away")
                above = (*above, os.path.realpath(local))
            children = asked(text, lambda: self.storage.children(text))
            if local is not None:
                _refuse_broken_links(local, {child.name for child in children})
            if any(child.name == "_delta_log" for child in children):
                raise InputError(f"{text} is a Delta table among files: name it alone, or take it away")
            for child in children:
                yield from self.below(child, base, True, above)
        else:
            if text.startswith("file:") and ":" in entry.name:
                raise InputError(f"{text} has a colon in its name, which Hadoop cannot open on a local disk: rename it")
            yield InputFile(text, name, entry.size, _partitions(name))


def _refuse_broken_links(folder: str, listed: set[str]) -> None:
    try:
        names = set(os.listdir(folder))
    except OSError as error:
        raise InputError(f"cannot read {folder}: {error.strerror}") from error
    for name in sorted(names - listed):
        if os.path.islink(os.path.join(folder, name)) and not _is_hidden(name):
            raise InputError(f"{os.path.join(folder, name)} is a link to nothing: take it away")


def _partitions(name: str) -> dict[str, str | None]:
    """The columns in the folders of a name, such as day=1: their values are never numbers, but as they are written."""
    found: dict[str, str | None] = {}
    for part in name.split("/")[:-1]:
        column, equals, value = part.partition("=")
        if equals and column:
            found[_unescaped(column)] = None if value == _HIVE_NULL else _unescaped(value)
    return found


def _unescaped(part: str) -> str:
    """Of a folder's name, as Spark and Hive write it: %3A is a colon."""
    return re.sub(r"%([0-7][0-9A-Fa-f])", lambda found: chr(int(found[1], 16)), part)


def _fixed_part(found: str, pattern: str) -> str:
    """The folder of a match up to where the pattern begins to be one."""
    parts = pattern.split("/")
    fixed = next(place for place, part in enumerate(parts) if _GLOB.search(part))
    kept = found.split("/")[: len(found.split("/")) - (len(parts) - fixed)]
    return "/".join(kept) + "/"


def _kind_of(location: str, files: list[InputFile], hidden: list[str]) -> str:
    """The kind of all files.

    Raises:
        InputError: there is no file, or they are of several kinds, or of none that is known.
    """
    if not files:
        aside = f", {len(hidden)} hidden files left out" if hidden else ""
        raise InputError(f"{location} has no file{aside}")
    wanted = file_kind(location.rstrip("/"))
    kinds = {file_kind(file.name): file.name for file in files}
    known = sorted(kind for kind in kinds if kind)
    kind = wanted or (known[0] if known else None)
    if kind is None:
        raise InputError(f"{location} has no file of a known kind: files are told by .parquet, .csv, .tsv or .jsonl")
    others = [name for other, name in kinds.items() if other != kind and (other or not wanted)]
    if others:
        raise InputError(f"{location} is read as {kind}, and has the file {others[0]}: take it away")
    return kind
