"""Token ids of the texts seen last: in the funnel a passage is met in hundreds of pairs, a query in as many."""

from collections import OrderedDict
from collections.abc import Sequence
from sys import getsizeof
from threading import Lock
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int32]
MAX_BYTES = 256 << 20
_OVERHEAD = 250
"""Bytes that an entry takes besides its text and the numbers of its ids."""


_LOCK = Lock()
_SHARED: "WeakValueDictionary[str, TokenCache]" = WeakValueDictionary()


class TokenCache:
    """Maps a text to its token ids; forgets what was not asked for longest. Several threads may use it.

    Args:
        max_bytes: about how much memory its texts and ids may take.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._ids: OrderedDict[str, Ids] = OrderedDict()
        self._lock = Lock()

    @classmethod
    def shared(cls, tokenizer: str) -> "TokenCache":
        """The one of all encoders that give texts the same ids, as long as one of them is there.

        Args:
            tokenizer: what stands for a tokenizer of texts; see `TextTokenizer`.
        """
        with _LOCK:
            cache = _SHARED.get(tokenizer)
            if cache is None:
                cache = _SHARED[tokenizer] = cls()
            return cache

    def get(self, text: str) -> Ids | None:
        """int32[tokens] of the text, or None."""
        with self._lock:
            ids = self._ids.get(text)
            if ids is not None:
                self._ids.move_to_end(text)
            return ids

    def put(self, text: str, ids: Ids) -> None:
        """Keep the ids of a text."""
        with self._lock:
            if text in self._ids:
                return
            self._ids[text] = ids
            self._bytes += _size(text, ids)
            while self._bytes > self._max_bytes:
                self._bytes -= _size(*self._ids.popitem(last=False))


def distinct_ids(texts: Sequence[Ids]) -> tuple[list[Ids], NDArray[np.int64]]:
    """Of n texts' ids the distinct ones, in order of their first; and int64[n], by text its place among them."""
    found: dict[bytes, int] = {}
    places = np.array([found.setdefault(ids.tobytes(), len(found)) for ids in texts], dtype=np.int64)
    _, first = np.unique(places, return_index=True)
    return [texts[place] for place in first.tolist()], places


def _size(text: str, ids: Ids) -> int:
    return getsizeof(text) + ids.nbytes + _OVERHEAD
