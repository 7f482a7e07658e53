"""Turns query and passage into the token ids of [CLS] query [SEP] passage [SEP], each distinct text tokenised once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from mkdm.errors import ModelError, RejectCode
from mkdm.scoring.block import Block, Texts
from mkdm.scoring.control_tokens import TextTokenizer
from mkdm.scoring.template import Template
from mkdm.scoring.token_cache import Ids, TokenCache

T = TypeVar("T")


@dataclass(frozen=True)
class RowError:
    """Why one row has no score.

    Attributes:
        code: the `error_code` of `rejected_pairs`.
        message: what is wrong with this row, for a person.
    """

    code: RejectCode
    message: str


Tokenised = tuple[dict[str, Ids], dict[str, RowError]]
"""Token ids by text, and by text why it has none."""


@dataclass(frozen=True)
class EncodedPairs:
    """A window of n pairs as token ids, without padding.

    Attributes:
        query_ids: int32[tokens] per pair, without special tokens.
        passage_ids: int32[tokens] per pair, cut so that the pair fits, without special tokens.
        lengths: int32[n], tokens of each pair, special tokens included; 0 where the row has an error.
        errors: by row number, the rows that cannot be encoded.
    """

    query_ids: list[Ids]
    passage_ids: list[Ids]
    lengths: NDArray[np.int32]
    errors: dict[int, RowError]


@dataclass(frozen=True)
class Batch:
    """Padded inputs of one forward pass: int64[B, L] each; `token_type_ids` is None for encoders without them."""

    input_ids: NDArray[np.int64]
    attention_mask: NDArray[np.int64]
    token_type_ids: NDArray[np.int64] | None


class PairEncoder:
    """Encodes pairs exactly as the tokenizer's own pair encoding does, truncating the passage alone.

    Texts that spell control tokens, such as [SEP] or </s>, are the exception: they are text here, and get the ids of
    their pieces; see `TextTokenizer`.

    Args:
        tokenizer: a fast (Rust) tokenizer.
        max_length: tokens of a pair at most, special tokens included.

    Raises:
        ModelError: the tokenizer is not a fast one, or its pair encoding is not prefix + a + middle + b + suffix.
    """

    def __init__(self, tokenizer: Any, max_length: int) -> None:
        if not isinstance(tokenizer, PreTrainedTokenizerFast):
            raise ModelError(
                f"{type(tokenizer).__name__} is not a fast tokenizer: save a tokenizer.json with the model"
            )
        self.max_length = max_length
        self._rust = tokenizer.backend_tokenizer
        self._rust.no_truncation()
        self._rust.no_padding()
        self._texts = TextTokenizer(tokenizer)
        self._pad_id = int(tokenizer.pad_token_id or 0)
        self._cache = TokenCache.shared(self._texts.version)
        self._least = 1
        self._passage_tokens = max_length  # of a passage at most
        self._has_types = "token_type_ids" in tokenizer.model_input_names
        self._learn_template()

    def _learn_template(self) -> None:
        """Find out where special tokens stand, and which types they have, from one pair that the tokenizer encodes."""
        text = "a"
        text_ids = self._rust.encode(text, add_special_tokens=False).ids
        pair = self._rust.encode(text, text, add_special_tokens=True)
        own = [i for i, special in enumerate(pair.special_tokens_mask) if not special]
        size = len(text_ids)
        if size == 0 or [pair.ids[i] for i in own] != text_ids * 2:
            raise ModelError(
                "the tokenizer's pair encoding is not special tokens around the two texts; cannot batch it"
            )
        first, second = own[:size], own[size:]
        parts = (pair.ids[: first[0]], pair.ids[first[-1] + 1 : second[0]], pair.ids[second[-1] + 1 :])
        self._prefix, self._middle, self._suffix = (np.array(part, dtype=np.int32) for part in parts)
        self._second_type_start = first[-1] + 1 - size + int(np.argmax(np.array(pair.type_ids[first[-1] + 1 :]) == 1))
        self._second_type = int(pair.type_ids[second[0]])
        self.special_tokens = len(self._prefix) + len(self._middle) + len(self._suffix)

    @property
    def template(self) -> Template:
        """What of the encoding a training set must tell, so that its token ids need no tokenizer any more."""
        return Template(
            pad_id=self._pad_id,
            query_start=len(self._prefix),
            has_types=self._has_types,
            second_type_start=self._second_type_start,
            second_type=self._second_type,
        )

    def tokenise(self, texts: Sequence[str]) -> tuple[dict[str, Ids], dict[str, RowError]]:
        """Token ids of each distinct text, without special tokens, and the texts that the tokenizer refuses.

        What spells a control token is text.
        """
        distinct = dict.fromkeys(texts)
        ids: dict[str, Ids] = {text: known for text in distinct if (known := self._cache.get(text)) is not None}
        refused: dict[str, RowError] = {}

        def encode(part: list[str]) -> None:
            for text, found in zip(part, self._texts.ids(part), strict=True):
                ids[text] = np.array(found, dtype=np.int32)
                self._cache.put(text, ids[text])

        def refuse(text: str, error: Exception) -> None:
            refused[text] = RowError(RejectCode.TOKENIZER_ERROR, f"{type(error).__name__}: {error}")

        bisect_failures([text for text in distinct if text not in ids], encode, refuse)
        return ids, refused

    def encode(self, queries: Texts, passages: Texts) -> EncodedPairs:
        """Encode n pairs of texts; see `encode_block`."""
        return self.encode_block(Block.of_pairs(queries, passages))

    def encode_block(self, block: Block) -> EncodedPairs:
        """Encode the pairs of a block, each text tokenised once.

        A pair that cannot be encoded becomes an entry of `errors`, never an exception.
        """
        in_queries, in_passages = self._tokenised(block)
        queries = _named(block.queries, "query", RejectCode.NULL_QUERY, RejectCode.EMPTY_QUERY, *in_queries)
        passages = _named(block.passages, "passage", RejectCode.NULL_PASSAGE, RejectCode.EMPTY_PASSAGE, *in_passages)
        query, passage = block.pairs.T
        fit = queries.fit[query] & passages.fit[passage]
        errors = {
            row: queries.errors.get(int(query[row])) or passages.errors[int(passage[row])]
            for row in np.flatnonzero(~fit).tolist()
        }
        room = self.max_length - self.special_tokens - queries.lengths[query]
        for row in np.flatnonzero(fit & (room < self._least)).tolist():
            errors[row] = RowError(
                RejectCode.QUERY_TOO_LONG,
                f"the query's {queries.lengths[query[row]]} tokens leave no room for the passage in {self.max_length}",
            )
        kept = np.minimum(passages.lengths[passage], np.clip(room, 0, self._passage_tokens))
        lengths = self.special_tokens + queries.lengths[query] + kept
        return EncodedPairs(
            query_ids=[queries.ids[place] for place in query.tolist()],
            passage_ids=[
                self._cut(passages.ids[place], size)
                for place, size in zip(passage.tolist(), kept.tolist(), strict=True)
            ],
            lengths=np.where(fit & (room >= self._least), lengths, 0).astype(np.int32),
            errors=errors,
        )

    def _tokenised(self, block: Block) -> tuple[Tokenised, Tokenised]:
        """Token ids of the block's queries, and of its passages; see `tokenise`."""
        both = self.tokenise([text for text in (*block.queries, *block.passages) if text])
        return both, both

    def _cut(self, ids: Ids, size: int) -> Ids:
        """The first `size` ids of a passage."""
        return ids[:size]

    def batch(self, pairs: EncodedPairs, rows: NDArray[np.int64], least: int = 0) -> Batch:
        """Pad the chosen rows to the longest of them, or to at least so many: [CLS] query [SEP] passage [SEP] [PAD]…"""
        width = max(least, int(pairs.lengths[rows].max()))
        input_ids = np.full((len(rows), width), self._pad_id, dtype=np.int64)
        type_ids = np.zeros((len(rows), width), dtype=np.int64)
        for i, row in enumerate(rows):
            query, passage = pairs.query_ids[row], pairs.passage_ids[row]
            length = pairs.lengths[row]
            np.concatenate((self._prefix, query, self._middle, passage, self._suffix), out=input_ids[i, :length])
            type_ids[i, self._second_type_start + len(query) : length] = self._second_type
        mask = (np.arange(width) < pairs.lengths[rows][:, None]).astype(np.int64)
        return Batch(input_ids, mask, type_ids if self._has_types else None)


@dataclass(frozen=True)
class _NamedTexts:
    """The queries or the passages of a block.

    Attributes:
        ids: by place, its token ids; none where it has an error.
        lengths: int64[texts], how many.
        fit: bool[texts], whether it can be encoded.
        errors: by place, why not.
    """

    ids: list[Ids]
    lengths: NDArray[np.int64]
    fit: NDArray[np.bool_]
    errors: dict[int, RowError]


def _named(
    texts: Texts,
    name: str,
    null: RejectCode,
    empty: RejectCode,
    ids: dict[str, Ids],
    refused: dict[str, RowError],
) -> _NamedTexts:
    errors = {}
    for place, text in enumerate(texts):
        if text is None:
            errors[place] = RowError(null, f"the {name} is null")
        elif text in refused:
            errors[place] = refused[text]
        elif not text or len(ids[text]) == 0:
            errors[place] = RowError(empty, f"the {name} has no token: {text[:40]!r}")
    nothing = np.zeros(0, dtype=np.int32)
    found = [nothing if place in errors else ids[text or ""] for place, text in enumerate(texts)]
    lengths = np.array([len(one) for one in found], dtype=np.int64)
    fit = np.ones(len(found), dtype=bool)
    fit[list(errors)] = False
    return _NamedTexts(found, lengths, fit, errors)


def bisect_failures(items: list[T], work: Callable[[list[T]], None], fail: Callable[[T, Exception], None]) -> None:
    """Run `work` on all items at once; where it raises, on halves, down to the single items that raise: those `fail`.

    `work` must have no effect on items of a call that raises. MemoryError is not an item's fault and passes through.
    """
    if not items:
        return
    try:
        work(items)
    except MemoryError:
        raise
    except Exception as error:  # whatever one bad row makes a tokenizer or a model raise
        if len(items) == 1:
            fail(items[0], error)
            return
        middle = len(items) // 2
        bisect_failures(items[:middle], work, fail)
        bisect_failures(items[middle:], work, fail)
