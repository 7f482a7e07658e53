"""Brings the many ways of typing one query to one text, and takes texts apart into words."""

import re
import unicodedata

from mkdm.text.invisible import without_unseen

_WORD = re.compile(r"\w+")


def normalise_query(text: str) -> str:
    """NFKC, lower case, single spaces between words, and nothing that is not seen; doing it twice changes nothing more.

    Lower case rather than case folding: what comes out is what a model reads, and folding spells words anew (ß as ss).

    Args:
        text: a query as it was typed.

    Returns:
        The normalised text; empty if there was nothing that one sees.
    """
    while True:  # lower case may need composing again, and that lower case again: İ, or letters with two accents
        normal = " ".join(unicodedata.normalize("NFKC", without_unseen(text)).lower().split())
        if normal == text:
            return normal
        text = normal


def words(text: str) -> list[str]:
    """The lower-case words of a text in their order: runs of letters, digits and underscores."""
    return _WORD.findall(text.lower())
