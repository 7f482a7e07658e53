"""The characters that nobody sees, told from those that join what stands beside them; so that no query hangs on them.

Unseen are control characters that are no white space, those that Unicode has a reader ignore when it cannot show them
(Default_Ignorable_Code_Point: zero-width space, soft hyphen, byte order mark, bidirectional marks and isolates, tags),
and the marks around annotations. Other format characters are seen, such as the Arabic number signs, and stay.

Some join: without ZWNJ a Persian word is another one, without ZWJ a family of emoji falls apart, and a variation
selector chooses how the sign before it looks. They stay where they do that, and nowhere else: `caf\\u200cé` is `café`.
"""

import re

_CONTROLS = "\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f"
_IGNORED = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff0-\ufffb"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e00ff\U000e01f0-\U000e0fff"
)
_SELECTORS = "\u180b-\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef"
_JOINERS = "\u200c\u200d"
_BLANKS = "\u2800\u3164\uffa0"
"""The braille blank and the Hangul fillers: they take up room, and show nothing in it."""
VISIBLE = f"[^\\s{_CONTROLS}{_IGNORED}{_SELECTORS}{_JOINERS}{_BLANKS}]"
"""Matches a character that is seen; Java's expressions need (?U) before it for the white space that Python's know."""

_JOINING = "\u0600-\u109f\u1780-\u18af\u1900-\u1cff\ua800-\uabff\U00010a00-\U00011fff\U0001e900-\U0001e95f"
"""Scripts whose letters take another shape beside a joiner: from Arabic to Myanmar, Khmer, Mongolian, and the later."""
_EMOJI = "\u2190-\u2bff\U0001f000-\U0001faff\ufe0f"
_ONE_LOOK = "A-Za-z\u00c0-\u05ff\u1e00-\u1fff"
"""Letters that no selector changes: Latin, Greek, Cyrillic, Hebrew."""
_FLAG = "\U0001f3f4[\U000e0030-\U000e0039\U000e0061-\U000e007a]{2,6}\U000e007f"
"""A flag of a region, such as Scotland's, which tags spell after a black flag."""
_UNSEEN = re.compile(
    f"({_FLAG})|[{_CONTROLS}{_IGNORED}]"
    f"|(?<![{_JOINING}{_EMOJI}])[{_JOINERS}]|[{_JOINERS}](?![{_JOINING}{_EMOJI}])"
    f"|(?<!{VISIBLE})[{_SELECTORS}]|(?<=[{_ONE_LOOK}])[{_SELECTORS}]"
)
_BLANK = re.compile(f"[{_BLANKS}]")


def without_unseen(text: str) -> str:
    """The text without the characters that nobody sees, and a space for a blank."""
    if text.isascii() and text.isprintable():
        return text
    return _UNSEEN.sub(lambda found: found[1] or "", _BLANK.sub(" ", text))
