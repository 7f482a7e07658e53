"""Tells texts that have HTML in them, and what a browser would show of those."""

import re
from collections.abc import Iterator

from lxml.etree import HTMLParser

_TAGS = (
    "a abbr article aside b blockquote body br button center code dd div dl dt em embed figure font footer form h1 h2 "
    "h3 h4 h5 h6 head header hr html i iframe img input label li link main meta nav ol option p pre script section "
    "select small span strong style sub sup svg table tbody td th thead title tr u ul video"
)
HTML = r"(?i)</?(" + "|".join(_TAGS.split()) + r")(\s[^<>]*)?/?>|<!--|<!doctype"
"""Matches a text that has HTML in it; Java's and Python's expressions read it alike."""
_UNSEEN = frozenset(("iframe", "noembed", "noframes", "script", "style", "template"))
_NOT_BLOCKS = "a abbr b button center code em embed font i img input label link meta small span strong sub sup u"
_BLOCKS = frozenset(_TAGS.split()) - frozenset(_NOT_BLOCKS.split()) - _UNSEEN
_RAW = frozenset(("plaintext", "script", "style", "textarea", "title", "xmp", "iframe", "noembed", "noframes"))
"""Elements whose content is text, whatever looks like a tag in it."""
_NEVER_CLOSED = frozenset(("body", "html"))
DEEP = 256
"""Open elements from which they are closed: the parser looks through all of them for each end tag that fits none."""
PIECE = 1024
"""Characters that are parsed before the open elements are counted again, about."""


class _Shown:
    """What lxml calls with each tag and text in turn.

    Attributes:
        parts: the text, a line break at the start and end of each block.
        open: the elements that have begun and not ended, outermost first.
    """

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.open: list[str] = []
        self._unseen = 0

    def start(self, tag: str, _: object) -> None:
        self.open.append(tag)
        if tag in _UNSEEN:
            self._unseen += 1
        elif tag in _BLOCKS:
            self.parts.append("\n")

    def end(self, tag: str) -> None:
        if self.open:
            self.open.pop()
        if tag in _UNSEEN:
            self._unseen -= 1
        elif tag in _BLOCKS:
            self.parts.append("\n")

    def data(self, text: str) -> None:
        if not self._unseen:
            self.parts.append(text)

    def comment(self, _: str) -> None:
        """Leave it out."""

    def close(self) -> None:
        """Nothing more comes."""


def strip_html(text: str) -> str:
    """The text that a browser would show of HTML: tags, comments, scripts and styles are left out, a block is a line.

    A text without HTML stays as it is, `a < b` and `&amp;` included. Time grows with the length of the text alone,
    however many tags are never closed.
    """
    if not re.search(HTML, text):
        return text
    shown = _Shown()
    parser = HTMLParser(target=shown, encoding="utf-8", huge_tree=True)
    for piece in _pieces(text.replace("\0", "")):
        parser.feed(piece.encode())
        if len(shown.open) > DEEP and shown.open[-1] not in _RAW:
            parser.feed("".join(f"</{tag}>" for tag in reversed(shown.open) if tag not in _NEVER_CLOSED).encode())
    parser.close()
    lines = (" ".join(line.split()) for line in "".join(shown.parts).splitlines())
    return "\n".join(line for line in lines if line)


def _pieces(text: str) -> Iterator[str]:
    """The text in parts that end before a tag, where there is one."""
    begin = 0
    while begin < len(text):
        end = text.find("<", begin + PIECE)
        end = len(text) if end < 0 else end
        yield text[begin:end]
        begin = end
