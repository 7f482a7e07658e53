"""Takes the lines of a CSV or TSV file apart, strictly (RFC 4180): what does not fit is a fault, and no row is lost."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

Quotes = Literal["doubled", "backslash", "none"]
"""How a quote within a quoted field is written: twice; after a backslash; or no field is quoted and quotes are text."""
MOST_BYTES = 64 * 2**20
"""Bytes of one row at most: a quote that does not close within them never closes."""


@dataclass(frozen=True)
class Record:
    """One row of a file, or an empty line of it.

    Attributes:
        line: the number of its first line, from 1.
        fields: its fields; None for an empty one that is not quoted. Of a row at fault, those before the fault.
        fault: what is wrong with it; empty for a row that fits.
        blank: whether it is an empty line, and no row.
    """

    line: int
    fields: list[bytes | None]
    fault: str = ""
    blank: bool = False


def records(lines: Iterable[bytes], delimiter: bytes, quotes: Quotes, first_line: int = 1) -> Iterator[Record]:
    """The rows of a file in their order.

    A row at fault ends with its first line and the next line begins a new row, so that a quote that never closes takes
    no other row with it. At most `MOST_BYTES` are held.

    Args:
        lines: without their line feeds; a carriage return before one is left out.
        delimiter: what stands between fields, one byte.
        first_line: the number of the first of these lines.
    """
    source, again = iter(lines), deque[bytes]()
    number = first_line - 1

    def following() -> bytes | None:
        return again.popleft() if again else next(source, None)

    while (line := following()) is not None:
        number += 1
        if line in (b"", b"\r"):
            yield Record(number, [], blank=True)
        elif quotes == "none" or b'"' not in line:
            yield Record(number, [part or None for part in line.removesuffix(b"\r").split(delimiter)])
        else:
            row, taken, size, next_line = _Row(delimiter, quotes == "backslash"), [line], len(line), line
            more = row.feed(next_line)
            known = len(row.fields)
            while more and not row.fault:
                following_line = following()
                if following_line is None:
                    row.fault = "a quote opens and never closes"
                elif (size := size + len(following_line)) > MOST_BYTES:
                    again.appendleft(following_line)
                    row.fault = f"a quote opens and does not close within {MOST_BYTES // 2**20} MiB"
                else:
                    taken.append(following_line)
                    more = row.feed(following_line)
            if row.fault:
                again.extendleft(reversed(taken[1:]))
                yield Record(number, row.fields[:known], row.fault)
            else:
                yield Record(number, row.fields)
                number += len(taken) - 1


@dataclass
class _Row:
    """The fields of a row of which some are quoted, line by line."""

    delimiter: bytes
    backslash: bool
    fields: list[bytes | None] = field(default_factory=list)
    fault: str = ""
    _open: list[bytes] | None = None

    def feed(self, line: bytes) -> bool:
        """Take a line; whether the row goes on in the next one."""
        place = 0
        while True:
            if self._open is None and line[place : place + 1] == b'"':
                self._open, place = [], place + 1
            if self._open is None:
                end = line.find(self.delimiter, place)
                text = line[place:].removesuffix(b"\r") if end < 0 else line[place:end]
                if b'"' in text:
                    self.fault = "a quote stands within a field that is not quoted"
                    return False
                self.fields.append(text or None)
                if end < 0:
                    return False
                place = end + 1
                continue
            place = self._closing(line, place)
            if place < 0:
                return True
            self.fields.append(b"".join(self._open))
            self._open = None
            rest = line[place : place + 1]
            if line[place:] in (b"", b"\r"):
                return False
            if rest != self.delimiter:
                self.fields.pop()
                self.fault = "text follows the quote that closes a field"
                return False
            place += 1

    def _closing(self, line: bytes, place: int) -> int:
        """Take the text of a quoted field; the place after its closing quote, or -1 if this line does not have it."""
        assert self._open is not None
        while True:
            quote = line.find(b'"', place)
            escape = line.find(b"\\", place) if self.backslash else -1
            if escape >= 0 and (quote < 0 or escape < quote):
                after = line[escape + 1 : escape + 2]
                self._open += [line[place:escape], after if after in (b'"', b"\\") and after else b"\\" + after]
                place = escape + 2
                if place > len(line):
                    self._open.append(b"\n")
                    return -1
            elif quote < 0:
                self._open += [line[place:], b"\n"]
                return -1
            elif not self.backslash and line[quote + 1 : quote + 2] == b'"':
                self._open.append(line[place : quote + 1])
                place = quote + 2
            else:
                self._open.append(line[place:quote])
                return quote + 1
