"""Tells texts that have HTML in them, and what a browser would show of those."""

import re
from html.parser import HTMLParser
from typing import Any

_TAGS = (
    "a abbr article aside b blockquote body br button center code dd div dl dt em embed figure font footer form h1 h2 "
    "h3 h4 h5 h6 head header hr html i iframe img input label li link main meta nav ol option p pre script section "
    "select small span strong style sub sup svg table tbody td th thead title tr u ul video"
)
HTML = r"(?i)</?(" + "|".join(_TAGS.split()) + r")(\s[^<>]*)?/?>|<!--|<!doctype"
"""Matches a text that has HTML in it; Java's and Python's expressions read it alike."""
_NOT_BLOCKS = "a abbr b button center code em embed font i iframe img input label link meta small span strong sub sup u"
_BLOCKS = frozenset(_TAGS.split()) - frozenset(_NOT_BLOCKS.split())
_UNSEEN = frozenset(("script", "style"))


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._unseen: str | None = None

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag in _UNSEEN:
            self._unseen = tag
        elif tag in _BLOCKS:
            self.parts.append("\n")

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        if tag in _BLOCKS:
            self.parts.append("\n")

    def handle_endtag(self, tag: str) -> None:
        if tag == self._unseen:
            self._unseen = None
        elif tag in _BLOCKS:
            self.parts.append("\n")

    def handle_data(self, text: str) -> None:
        if self._unseen is None:
            self.parts.append(text)

    def parse_marked_section(self, i: int, report: int = 1) -> int:
        """Take `<![…>` as the comment that it is to a browser; Python's own way raises AssertionError at most."""
        return self.parse_bogus_comment(i, False)


def strip_html(text: str) -> str:
    """The text that a browser would show of HTML: tags, comments, scripts and styles are left out, a block is a line.

    A text without HTML stays as it is, `a < b` and `&amp;` included.
    """
    if not re.search(HTML, text):
        return text
    parser = _Text()
    parser.feed(text)
    parser.close()
    lines = (" ".join(line.split()) for line in "".join(parser.parts).splitlines())
    return "\n".join(line for line in lines if line)
