"""What the lines of a CSV or TSV file tell of how it writes quotes: no file says so itself."""

import re
from dataclasses import dataclass


@dataclass
class QuoteSigns:
    """Lines by what they tell.

    Attributes:
        backslashes: have a quote after a backslash, as no strict file with doubled quotes has.
        doublings: have a doubled quote, as no file with backslashes has; of TSV, in a field that is all in quotes.
        pairs_of_backslashes, single_backslashes: have quotes, and all their backslashes in pairs, or not all.
    """

    backslashes: int = 0
    doublings: int = 0
    pairs_of_backslashes: int = 0
    single_backslashes: int = 0

    def see(self, line: bytes, delimiter: bytes) -> None:
        """Count a line."""
        if b'"' not in line:
            return
        inner = b'[^"\\r\\n' + delimiter + b"]"
        if delimiter == b"\t":
            self.doublings += _quotes_a_field(line)
        else:
            self.doublings += re.search(rb'[^\\"\r\n' + delimiter + rb']""' + inner, line) is not None
        if b"\\" in line:
            self.backslashes += re.search(rb'\\"' + inner, line) is not None
            odd = any(len(run) % 2 for run in re.findall(rb"\\+", line))
            self.single_backslashes += odd
            self.pairs_of_backslashes += not odd


def _quotes_a_field(line: bytes) -> bool:
    fields = [part for part in line.removesuffix(b"\r").split(b"\t") if len(part) > 2 and part[:1] == part[-1:] == b'"']
    return any(b'""' in part[1:-1] and b'"' not in part[1:-1].replace(b'""', b"") for part in fields)
