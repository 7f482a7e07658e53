"""What is scored at once: some queries and some passages, each text once, and which of them meet."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mkdm.errors import InputError

Texts = Sequence[str | None]


@dataclass(frozen=True)
class Block:
    """Some queries and passages that meet.

    Attributes:
        queries: q texts, null for none.
        passages: p texts, null for none.
        pairs: int64[n, 2], by pair the place of its query and that of its passage.
    """

    queries: Texts
    passages: Texts
    pairs: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.pairs)

    @classmethod
    def of_pairs(cls, queries: Texts, passages: Texts) -> "Block":
        """The block of n pairs of texts, in their order: each distinct text once."""
        found: list[dict[str | None, int]] = [{}, {}]
        columns = [
            [places.setdefault(text, len(places)) for text in texts]
            for places, texts in zip(found, (queries, passages), strict=True)
        ]
        pairs = np.array(columns, dtype=np.int64).reshape(2, -1).T
        return cls(list(found[0]), list(found[1]), pairs)

    def places(self) -> NDArray[np.int64]:
        """int64[n, 2], by pair the first place of its query's text, and of its passage's."""
        return np.stack(
            [
                _first_places(texts)[places]
                for texts, places in zip((self.queries, self.passages), self.pairs.T, strict=True)
            ],
            axis=1,
        )

    def leaders(self) -> NDArray[np.int64]:
        """int64[n], by pair the first pair of the same two texts, which may be itself."""
        query, passage = self.places().T
        _, first, which = np.unique(
            query * max(1, len(self.passages)) + passage, return_index=True, return_inverse=True
        )
        leaders: NDArray[np.int64] = first[which.reshape(-1)]
        return leaders


def _first_places(texts: Texts) -> NDArray[np.int64]:
    first: dict[str | None, int] = {}
    return np.array([first.setdefault(text, place) for place, text in enumerate(texts)], dtype=np.int64)


def block_of(queries: Texts, passages: Texts, pairs: ArrayLike | None) -> Block:
    """The block of some queries and passages; of all with all, without pairs.

    Raises:
        InputError: `pairs` is not int[n, 2], or names a place that is not there.
    """
    if pairs is None:
        grid = np.indices((len(queries), len(passages)), dtype=np.int64)
        return Block(queries, passages, grid.reshape(2, -1).T)
    places = np.asarray(pairs)
    if places.size == 0:
        return Block(queries, passages, np.zeros((0, 2), dtype=np.int64))
    if places.ndim != 2 or places.shape[1] != 2 or not np.issubdtype(places.dtype, np.integer):
        raise InputError(
            f"the pairs of a block are {places.dtype} of shape {places.shape}; they must be whole numbers, two a pair: "
            f"the place of its query and that of its passage"
        )
    for name, texts, column in (("query", queries, places[:, 0]), ("passage", passages, places[:, 1])):
        wrong = np.flatnonzero((column < 0) | (column >= len(texts)))
        if len(wrong):
            raise InputError(f"pair {wrong[0]} has {name} {column[wrong[0]]}, of {len(texts)}, counted from 0")
    return Block(queries, passages, places.astype(np.int64))
