"""Text files in Spark tasks: their lines in, rows as strings out; rows at fault among them, told by file and line."""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import chain, groupby

import pyarrow as pa

from mkdm.columns import ROW_FAULT
from mkdm.errors import RejectCode
from mkdm.text import IDS, TEXTS, Quotes, QuoteSigns, Record, RowFault, read_object, records, value_text

FILE, LINE = "file", "line"
FACTS = f"{FILE} string, facts string"
"""The schema of `facts_of`."""
BATCH_ROWS, BATCH_BYTES = 1024, 8 * 2**20
"""Rows, and bytes of their texts, of one Arrow batch that goes back to Spark."""
MOST_COLUMNS = 1000

Batches = Iterable[pa.RecordBatch]


@dataclass(frozen=True)
class TextFile:
    """How a file is to be read.

    Attributes:
        name: what messages call it.
        kind: csv, tsv or json.
        columns: names told by the user, where its first line is a row; empty where that is its header.
        quotes: of csv and tsv.
        partitions: by column, the value that its folders give all its rows.
    """

    name: str
    kind: str
    columns: tuple[str, ...] = ()
    quotes: Quotes = "doubled"
    partitions: dict[str, str | None] = field(default_factory=dict)


@dataclass
class FileFacts:
    """What one pass over a file found; goes to the driver as JSON.

    Attributes:
        columns: its header, or the names in its objects.
        refusal: why the whole file cannot be read; empty if it can.
        signs: of how quotes are written.
    """

    columns: list[str] = field(default_factory=list)
    rows: int = 0
    blank: int = 0
    faults: int = 0
    first_fault: str = ""
    refusal: str = ""
    signs: QuoteSigns = field(default_factory=QuoteSigns)

    @classmethod
    def read(cls, text: str) -> "FileFacts":
        """What a task wrote of a file."""
        found = json.loads(text)
        return cls(**{**found, "signs": QuoteSigns(**found["signs"])})


@dataclass(frozen=True)
class _Row:
    """A row: its values by column, and its fault, `code: message`, or empty."""

    values: dict[str, str | None]
    fault: str = ""


def facts_of(files: dict[str, TextFile]) -> Callable[[Batches], Batches]:
    """For `mapInArrow` over (file, line): what there is in each file."""

    def facts(batches: Batches) -> Batches:
        for path, lines in _by_file(batches):
            found = FileFacts()
            for row in _rows(files[path], lines, found):
                if row is None:
                    found.blank += 1
                    continue
                found.rows += 1
                if row.fault:
                    found.faults += 1
                    found.first_fault = found.first_fault or row.fault
            yield pa.RecordBatch.from_pydict({FILE: [path], "facts": [json.dumps(asdict(found))]})

    return facts


def rows_of(files: dict[str, TextFile], columns: tuple[str, ...]) -> Callable[[Batches], Batches]:
    """For `mapInArrow` over (file, line): the columns as strings, and ROW_FAULT if it is among them."""

    def batch_of(rows: list[_Row]) -> pa.RecordBatch:
        made = {name: pa.array([row.values.get(name) for row in rows], pa.string()) for name in columns}
        if ROW_FAULT in columns:
            made[ROW_FAULT] = pa.array([row.fault or None for row in rows], pa.string())
        return pa.RecordBatch.from_pydict(made)

    def read(batches: Batches) -> Batches:
        held: list[_Row] = []
        size = 0
        for path, lines in _by_file(batches):
            file = files[path]
            for row in _rows(file, lines, FileFacts()):
                if row is None:
                    continue
                held.append(_Row({**row.values, **file.partitions}, row.fault) if file.partitions else row)
                size += sum(len(value) for value in row.values.values() if value)
                if len(held) >= BATCH_ROWS or size >= BATCH_BYTES:
                    yield batch_of(held)
                    held, size = [], 0
        if held:
            yield batch_of(held)

    return read


def unpacked(batches: Batches) -> Batches:
    """For `mapInArrow` over (file, content) of Zstandard files: (file, line)."""
    for batch in batches:
        for path, content in zip(batch.column(0).to_pylist(), batch.column(1), strict=True):
            held: list[bytes] = []
            size = 0
            with pa.CompressedInputStream(pa.BufferReader(content.as_buffer()), "zstd") as stream:
                for line in _lines(stream):
                    held.append(line)
                    size += len(line)
                    if size >= BATCH_BYTES or len(held) >= BATCH_ROWS:
                        yield _line_batch(path, held)
                        held, size = [], 0
            if held:
                yield _line_batch(path, held)


def _lines(stream: pa.NativeFile) -> Iterator[bytes]:
    rest = b""
    while block := stream.read(2**20):
        *lines, rest = (rest + block).split(b"\n")
        yield from lines
    if rest:
        yield rest


def _line_batch(path: str, lines: list[bytes]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict({FILE: [path] * len(lines), LINE: pa.array(lines, pa.binary())})


def _by_file(batches: Batches) -> Iterator[tuple[str, Iterator[bytes]]]:
    lines = (
        pair for batch in batches for pair in zip(batch.column(0).to_pylist(), batch.column(1).to_pylist(), strict=True)
    )
    for path, group in groupby(lines, key=lambda pair: pair[0]):
        yield path, (line for _, line in group)


def _rows(file: TextFile, lines: Iterator[bytes], facts: FileFacts) -> Iterator[_Row | None]:
    """The rows of a file, None for an empty line; fills in `facts`, and ends early where the file is refused."""
    first = next(lines, None)
    if first is None:
        return
    if first[:2] == b"\x1f\x8b" or first[:4] in (b"PK\x03\x04", b"\x28\xb5\x2f\xfd", b"PAR1"):
        facts.refusal = (
            f"{file.name} is no text but packed, or of another kind: call it as it is, such as .{file.kind}.gz"
        )
        return
    if first[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in first[:4]:
        facts.refusal = f"{file.name} is UTF-16 and not UTF-8: convert it"
        return
    first = first.removeprefix(b"\xef\xbb\xbf")
    if file.kind == "json":
        yield from _json_rows(file, chain([first], lines), facts)
    else:
        yield from _delimited_rows(file, chain([first], lines), facts)


def _delimited_rows(file: TextFile, lines: Iterator[bytes], facts: FileFacts) -> Iterator[_Row | None]:
    delimiter = b"\t" if file.kind == "tsv" else b","

    def seen() -> Iterator[bytes]:
        for line in lines:
            facts.signs.see(line, delimiter)
            yield line

    found = records(seen(), delimiter, file.quotes)
    header = file.columns
    for record in found:
        if record.blank:
            yield None
        elif not header:
            header = _header(record, file, facts)
            if facts.refusal:
                return
        elif record.line == 1 and file.columns and _texts(record.fields) == list(header):
            facts.refusal = f"{file.name} has a header: leave --columns out"
            return
        else:
            yield _delimited_row(record, header, file)
    facts.columns = list(header)


def _header(record: Record, file: TextFile, facts: FileFacts) -> tuple[str, ...]:
    if record.fault:
        facts.refusal = f"{file.name} line {record.line}: {record.fault}, in the header"
        return ()
    try:
        names = [(part or b"").decode().strip() for part in record.fields]
    except UnicodeDecodeError:
        facts.refusal = f"{file.name} line {record.line}: the header is not UTF-8"
        return ()
    if any("\r" in name for name in names):
        facts.refusal = f"{file.name} ends its lines with carriage returns alone: convert them to line feeds"
    if len(names) == 1 and file.kind == "csv" and "\t" in names[0]:
        facts.refusal = f"{file.name} has tabs between its columns: call it .tsv"
    if len(names) == 1 and file.kind == "csv" and ";" in names[0]:
        facts.refusal = f"{file.name} has semicolons between its columns: write commas"
    named = [name or f"_c{place}" for place, name in enumerate(names)]
    twice = [name for name in named if named.count(name) > 1]
    if (
        file.kind == "tsv"
        and file.quotes == "none"
        and all(len(name) > 1 and name[0] == name[-1] == '"' for name in names)
    ):
        facts.refusal = f"{file.name} quotes its fields: say so with --csv-escape doubled or backslash"
    if not facts.refusal and not has_names(named):
        facts.refusal = (
            f"{file.name} has no header: its first line is {', '.join(names)[:100]!r}. Name the columns of such files "
            f"with --columns query_id,passage_id,query,passage"
        )
    elif not facts.refusal and twice:
        facts.refusal = f"{file.name} has the column {twice[0]} twice"
    facts.columns = named
    return tuple(named)


def has_names(names: list[str]) -> bool:
    """Whether some are columns that inputs have, in whatever case: else the line is a row, and no header."""
    return any(name.lower() in IDS | TEXTS for name in names)


def _texts(fields: list[bytes | None]) -> list[str]:
    return [(part or b"").decode(errors="replace").strip() for part in fields]


def _delimited_row(record: Record, header: tuple[str, ...], file: TextFile) -> _Row:
    where = f"{file.name} line {record.line}"
    fault = record.fault
    if not fault and len(record.fields) != len(header):
        fault = f"{len(record.fields)} field{'s' if len(record.fields) != 1 else ''} and not {len(header)}"
    if not fault and _texts(record.fields[:1]) == [header[0]] and _texts(record.fields) == list(header):
        fault = "the header again"
    values: dict[str, str | None] = {}
    broken = ""
    ids = True  # whether all columns so far were ids: a text that was taken apart moves those after it
    for name, part in zip(header, record.fields, strict=False):
        ids = ids and name in IDS
        if fault and not ids:
            break
        try:
            values[name] = None if part is None else part.decode()
        except UnicodeDecodeError:
            broken = broken or name
    if fault:
        return _Row(values, f"{RejectCode.MALFORMED_ROW}: {where}: {fault}")
    if broken:
        return _Row(values, f"{RejectCode.INVALID_TEXT}: {where}: {broken} is not UTF-8")
    return _Row(values)


def _json_rows(file: TextFile, lines: Iterator[bytes], facts: FileFacts) -> Iterator[_Row | None]:
    names: dict[str, None] = {}
    for number, line in enumerate(lines, 1):
        stripped = line.strip()
        if not stripped:
            yield None
            continue
        if number == 1 and stripped.startswith(b"["):
            facts.refusal = f"{file.name} is a JSON array: write one object a line"
            return
        row, seen = _json_row(file, number, stripped)
        names |= dict.fromkeys(seen)
        if len(names) > MOST_COLUMNS:
            facts.refusal = f"{file.name} has more than {MOST_COLUMNS:,} names in its objects"
            return
        yield row
    facts.columns = list(names)


def _json_row(file: TextFile, number: int, line: bytes) -> tuple[_Row, list[str]]:
    where = f"{file.name} line {number}"
    try:
        found = read_object(line)
    except UnicodeDecodeError:
        return _Row({}, f"{RejectCode.INVALID_TEXT}: {where}: not UTF-8"), []
    except RowFault as error:
        return _Row({}, f"{RejectCode.MALFORMED_ROW}: {where}: {error}"), []
    values: dict[str, str | None] = {}
    fault = ""
    for name, value in found.items():
        try:
            values[name] = value_text(name, value)
        except RowFault as error:
            fault = fault or f"{RejectCode.MALFORMED_ROW}: {where}: {error}"
        except UnicodeEncodeError:
            fault = fault or f"{RejectCode.INVALID_TEXT}: {where}: {name} has half of a character (a lone surrogate)"
    if fault:
        values = {name: value for name, value in values.items() if name in IDS}
    return _Row(values, fault), list(found)
