"""The texts of a block, for a student with separate layers: each once, as a query part or as a passage part."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mkdm.errors import ConfigError, ModelError
from mkdm.model import Separation
from mkdm.scoring.encoding import EncodedPairs, PairEncoder
from mkdm.scoring.token_cache import Ids


@dataclass(frozen=True)
class TextBatch:
    """Padded parts of B texts: int64[B, L] each; `token_type_ids` is None for encoders without them."""

    input_ids: NDArray[np.int64]
    attention_mask: NDArray[np.int64]
    position_ids: NDArray[np.int64]
    token_type_ids: NDArray[np.int64] | None


@dataclass(frozen=True)
class PairBatch:
    """Where B pairs find the states of their tokens: int64[B, L] each; row 0 of the states is that of padding."""

    index: NDArray[np.int64]
    attention_mask: NDArray[np.int64]


@dataclass(frozen=True)
class PairTexts:
    """The texts of some pairs of a block.

    Attributes:
        queries: how many of the texts are queries; they come first.
        ids: token ids of each part, special tokens included.
        lengths: int64[texts], how many.
        starts: int64[texts], where its states begin; row 0 is that of padding.
        tokens: all of them, and the one of padding.
        of_pair: int64[n, 2], by row of the block its query's and its passage's number; only those of the pairs count.
    """

    queries: int
    ids: list[Ids]
    lengths: NDArray[np.int64]
    starts: NDArray[np.int64]
    of_pair: NDArray[np.int64]

    @property
    def tokens(self) -> int:
        """Rows of states: one a token, and one of padding."""
        return 1 + int(self.lengths.sum())

    def pair_batch(self, rows: NDArray[np.int64]) -> PairBatch:
        """Where the tokens of the chosen pairs are, padded to the longest of them."""
        query, passage = self.of_pair[rows].T[:, :, None]  # [B, 1] each
        middle = self.lengths[query]
        place = np.arange(int((middle + self.lengths[passage]).max()))
        there = place < middle + self.lengths[passage]
        index = np.where(place < middle, self.starts[query] + place, self.starts[passage] + place - middle)
        return PairBatch(np.where(there, index, 0), there.astype(np.int64))

    def state_rows(self, texts: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rows of the states of the chosen texts' tokens, text by text: int64[tokens]."""
        return np.concatenate([self.starts[text] + np.arange(self.lengths[text]) for text in texts])


class SeparatePairEncoder(PairEncoder):
    """Encodes pairs for a student with separate layers: a passage is cut to the same tokens whatever its query.

    Only a query part that is longer than the place where passages start leaves a passage less.

    Raises:
        ModelError: see `PairEncoder`; or the tokenizer ends the query part with another token than the student's.
        ConfigError: max_length leaves no room for a passage.
    """

    def __init__(self, tokenizer: Any, max_length: int, separation: Separation) -> None:
        super().__init__(tokenizer, max_length)
        self.separation = separation
        self._head, self._tail = self._middle[:1], self._middle[1:]
        if self._head.tolist() != [separation.separator_id] or separation.separator_id in self._prefix.tolist():
            raise ModelError(
                f"the tokenizer does not end the query with token {separation.separator_id}, by which the student "
                f"tells query and passage apart: save the tokenizer that the student was trained with"
            )
        self._passage_tokens = separation.passage_part(max_length) - len(self._tail) - len(self._suffix)
        if self._passage_tokens < 1:
            raise ConfigError(f"{max_length} tokens leave no room for a passage: give at least {max_length + 1}")

    def of_rows(
        self, input_ids: NDArray[np.int32], lengths: NDArray[np.int32], queries: NDArray[np.int32]
    ) -> EncodedPairs:
        """Pairs that are encoded already, such as those of a training set, with their passages cut as here.

        Args:
            input_ids: int32[n, L], padded.
            lengths: int32[n], tokens of each pair, special tokens included.
            queries: int32[n], tokens of each query, without special tokens.
        """
        start = len(self._prefix)
        ends = lengths - len(self._suffix)
        passages = [
            row[start + query + len(self._middle) : end][: self._passage_tokens]
            for row, query, end in zip(input_ids, queries.tolist(), ends.tolist(), strict=True)
        ]
        return EncodedPairs(
            query_ids=[row[start : start + query] for row, query in zip(input_ids, queries.tolist(), strict=True)],
            passage_ids=passages,
            lengths=(queries + [len(one) + self.special_tokens for one in passages]).astype(np.int32),
            errors={},
        )

    def texts(self, pairs: EncodedPairs, places: NDArray[np.int64], rows: NDArray[np.int64]) -> PairTexts:
        """The texts of the chosen pairs, each once.

        Args:
            places: int64[n, 2], by pair which query and which passage it has; equal ones have equal texts.
        """
        keys = self._keys(pairs, places, rows)
        of_pair = np.zeros((len(pairs.lengths), 2), dtype=np.int64)
        ids: list[Ids] = []
        queries = 0
        for column in (0, 1):
            _, first, number = np.unique(keys[:, column], return_index=True, return_inverse=True)
            of_pair[rows, column] = number.reshape(-1) + len(ids)
            for row in rows[first].tolist():
                if column == 0:
                    ids.append(np.concatenate((self._prefix, pairs.query_ids[row], self._head)))
                else:
                    ids.append(np.concatenate((self._tail, pairs.passage_ids[row], self._suffix)))
            queries = queries or len(ids)
        lengths = np.array([len(one) for one in ids], dtype=np.int64)
        starts = 1 + np.cumsum(lengths) - lengths
        return PairTexts(queries, ids, lengths, starts, of_pair)

    def divide(
        self, pairs: EncodedPairs, places: NDArray[np.int64], rows: NDArray[np.int64], tokens: int
    ) -> list[NDArray[np.int64]]:
        """The rows in parts, of each of which the texts have no more tokens than that; at least one pair a part."""
        if self.texts(pairs, places, rows).tokens <= tokens:
            return [rows]
        keys = self._keys(pairs, places, rows)
        order = np.lexsort((keys[:, 0], keys[:, 1]))
        parts: list[list[int]] = []
        seen: set[tuple[int, int]] = set()
        held = 0
        for place in order.tolist():
            row = int(rows[place])
            kept = len(pairs.passage_ids[row]) + len(self._tail) + len(self._suffix)
            sizes = {(0, int(keys[place, 0])): int(pairs.lengths[row]) - kept, (1, int(keys[place, 1])): kept}
            if not parts or held + sum(size for key, size in sizes.items() if key not in seen) > tokens:
                parts.append([])
                seen, held = set(), 1  # that of padding
            held += sum(size for key, size in sizes.items() if key not in seen)
            seen |= sizes.keys()
            parts[-1].append(row)
        return [np.sort(np.array(part, dtype=np.int64)) for part in parts]

    def _keys(self, pairs: EncodedPairs, places: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """int64[rows, 2]: what two pairs share that have the same query part, and the same passage part."""
        kept = np.array([len(pairs.passage_ids[row]) for row in rows], dtype=np.int64)
        return np.stack((places[rows, 0], places[rows, 1] * (self.max_length + 1) + kept), axis=1)

    def text_batch(self, texts: PairTexts, chosen: NDArray[np.int64]) -> TextBatch:
        """Pad the chosen texts to the longest of them."""
        lengths = texts.lengths[chosen][:, None]
        place = np.arange(int(lengths.max()))
        there = place < lengths
        input_ids = np.full(there.shape, self._pad_id, dtype=np.int64)
        input_ids[there] = np.concatenate([texts.ids[text] for text in chosen])
        of_query = (chosen < texts.queries)[:, None]
        positions = np.where(of_query, place, place + self.separation.passage_position)
        own = lengths - len(self._prefix) - len(self._head)
        second = np.where(
            of_query, place >= self._second_type_start + own, place >= self._second_type_start - len(self._prefix) - 1
        )
        types = np.where(second & there, self._second_type, 0)
        return TextBatch(
            input_ids, there.astype(np.int64), np.where(there, positions, 0), types if self._has_types else None
        )
