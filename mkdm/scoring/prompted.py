"""Pairs inside a prompt or template: each text tokenised once, among what stands around it there.

A tokenizer may join what meets, such as a query's question mark and the line break after it. So a text is tokenised
with its neighbours, up to the next control token or to a place between query and passage where the tokenizer always
parts them. Such a place is found by trial, on texts that begin and end in every way.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mkdm.errors import ModelError
from mkdm.model import Wording
from mkdm.scoring.block import Block, Texts
from mkdm.scoring.control_tokens import TextTokenizer
from mkdm.scoring.encoding import PairEncoder, Tokenised
from mkdm.scoring.token_cache import Ids, TokenCache

_TRIALS: tuple[str, ...] = (
    "a",
    "what is it?",
    "1",
    "4.2.",
    "b\n",
    "\nb",
    " b ",
    "  b",
    "?",
    "\u00e9",
    "\u4e2d",
    "...",
    "it's",
    "(b)",
)
_TRIALS += ('"b"', "b:", ":b", ">", "<b>", "A", "_b_", "-", "b/", "'s", "B2B\t", "b\n\n", "100%", "#1", "b  c")


@dataclass(frozen=True)
class _Around:
    """What is tokenised with a text: on its left, and on its right."""

    left: str = ""
    right: str = ""


class PromptedEncoder(PairEncoder):
    """Encodes pairs as the tokenizer does the whole text that a wording makes of them; no text writes control tokens.

    A pair that is too long loses the end of its passage, never what the template has behind it.

    Args:
        tokenizer: a fast tokenizer.
        max_length: tokens of a pair at most, those of the template included.
        wording: what stands around the texts.

    Raises:
        ModelError: as for `PairEncoder`, or the tokenizer joins query and passage across the template.
    """

    def __init__(self, tokenizer: Any, max_length: int, wording: Wording) -> None:
        self._wording = wording
        super().__init__(tokenizer, max_length)
        if wording.template is not None:
            self._texts = TextTokenizer(tokenizer, wording.template)
            self._cache = TokenCache.shared(self._texts.version)
            self._learn_wording(wording.template)
        else:
            self._query, self._passage = _Around(wording.before_query), _Around()
        self._bare = {around: self._text_ids(around.left + around.right) for around in (self._query, self._passage)}
        self._tail = self._ids_after_passage()
        self._least = 1 + len(self._text_ids(self._passage.left)) + len(self._tail)

    def _learn_template(self) -> None:
        if self._wording.template is None:
            super()._learn_template()

    def _learn_wording(self, template: str) -> None:
        """Split the template at its control tokens, and between query and passage."""
        before, _, rest = template.partition("{query}")
        between, _, after = rest.partition("{passage}")
        control = self._texts.control
        lead, trail = self._around_one_text()
        if self._wording.complete or any(before.startswith(word) for word in control):
            lead, trail = [], []
        head, left = _parted(before, control, last=True)
        right, tail = _parted(after, control, last=False)
        cuts = [(between, "", "")]
        if any(word in between for word in control):
            first, others = _parted(between, control, last=False)
            middle, second = _parted(others, control, last=True)
            cuts = [(first, middle, second)]
        else:
            cuts = sorted(_cuts(between), key=lambda one: abs(len(one[0]) - len(one[2])))
        self._has_types, self._second_type_start, self._second_type = False, 0, 0
        self._prefix, self._suffix = _array(lead + self._parsed(head)), _array(self._parsed(tail) + trail)
        for first, middle, second in cuts:
            self._query, self._passage = _Around(left, first), _Around(second, right)
            self._middle = _array(self._parsed(middle))
            if all(self._parts(template, lead, trail, *texts) for texts in _trials()):
                break
        else:
            raise ModelError(
                "the tokenizer joins the template with the texts in it, so that they cannot be tokenised apart: put a "
                "line break or a word between {query} and {passage}"
            )
        self.special_tokens = len(self._prefix) + len(self._middle) + len(self._suffix)

    def _parts(self, template: str, lead: list[int], trail: list[int], query: str, passage: str) -> bool:
        """Whether the parts of a pair are what the tokenizer makes of the whole."""
        before, _, rest = template.partition("{query}")
        between, _, after = rest.partition("{passage}")
        whole = lead + self._parsed(f"{before}{query}{between}{passage}{after}") + trail
        around = [self._text_ids(one.left + text + one.right) for one, text in self._both(query, passage)]
        return whole == [*self._prefix, *around[0], *self._middle, *around[1], *self._suffix]

    def _both(self, query: str, passage: str) -> list[tuple[_Around, str]]:
        return [(self._query, query), (self._passage, passage)]

    def _around_one_text(self) -> tuple[list[int], list[int]]:
        """The special tokens that the tokenizer puts before and after a text."""
        with_them = self._rust.encode("a", add_special_tokens=True)
        own = [place for place, special in enumerate(with_them.special_tokens_mask) if not special]
        return list(with_them.ids[: own[0]]), list(with_them.ids[own[-1] + 1 :])

    def _parsed(self, text: str) -> list[int]:
        """Ids of a text of ours, in which control tokens are what they are."""
        self._rust.encode_special_tokens = False
        return list(self._rust.encode(text, add_special_tokens=False).ids)

    def _text_ids(self, text: str) -> list[int]:
        return self._texts.ids([text])[0]

    def _ids_after_passage(self) -> Ids:
        """What a passage that is cut has behind it."""
        around = self._passage
        if not around.right:
            return _array([])
        whole, cut = self._text_ids(f"{around.left}a{around.right}"), self._text_ids(f"{around.left}a")
        shared = next((place for place, (one, other) in enumerate(zip(whole, cut, strict=False)) if one != other), None)
        return _array(whole[len(cut) if shared is None else shared :])

    def _tokenised(self, block: Block) -> tuple[Tokenised, Tokenised]:
        return self._in_place(block.queries, self._query), self._in_place(block.passages, self._passage)

    def _in_place(self, texts: Texts, around: _Around) -> Tokenised:
        """By text the ids of it with what is around it; none where it adds nothing to that."""
        whole = {text: around.left + text + around.right for text in texts if text}
        found, refused = self.tokenise(list(whole.values()))
        ids = {}
        for text, one in whole.items():
            if one in found:
                empty = not text.strip() or found[one].tolist() == self._bare[around]
                ids[text] = found[one][:0] if empty else found[one]
        return ids, {text: refused[one] for text, one in whole.items() if one in refused}

    def _cut(self, ids: Ids, size: int) -> Ids:
        if size >= len(ids):
            return ids
        return np.concatenate((ids[: size - len(self._tail)], self._tail))


def _parted(text: str, control: Sequence[str], last: bool) -> tuple[str, str]:
    """A text in two: behind its last control token, or before its first; whole on the outer side where it has none."""
    if last:
        ends = [text.rindex(word) + len(word) for word in control if word in text]
        place = max(ends, default=0)
    else:
        place = min((text.index(word) for word in control if word in text), default=len(text))
    return text[:place], text[place:]


def _cuts(between: str) -> Iterator[tuple[str, str, str]]:
    """The ways to part what stands between query and passage; a space may belong to neither side."""
    for place in range(len(between) + 1):
        yield between[:place], "", between[place:]
        if between[place : place + 1] == " ":
            yield between[:place], "", between[place + 1 :]


def _trials() -> Iterator[tuple[str, str]]:
    for step in (0, 1, 7):
        yield from ((text, _TRIALS[(place + step) % len(_TRIALS)]) for place, text in enumerate(_TRIALS))


def _array(ids: list[int]) -> Ids:
    return np.array(ids, dtype=np.int32)
