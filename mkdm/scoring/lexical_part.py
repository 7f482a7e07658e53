"""How far a student's lexical part moves the logits of a block's pairs; each text is counted once."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mkdm.model import Lexical
from mkdm.scoring.encoding import EncodedPairs
from mkdm.scoring.token_cache import Ids, distinct_ids

_AT_ONCE = 8192
"""Pairs whose texts' tokens are laid side by side at once: some 20 MB."""


def lexical_shifts(lexical: Lexical, pairs: EncodedPairs) -> NDArray[np.float32]:
    """What is added to the logits of n pairs, w · (ln((1 + BM25) / (1 + most)) − c); see `mkdm.model.lexical`.

    Memory grows with the tokens of the distinct texts. What a pair gets does not depend on the others, to the last bit.

    Returns:
        float32[n]; 0 for a pair with an error.
    """
    good = np.flatnonzero(pairs.lengths > 0)
    shifts = np.zeros(len(pairs.lengths), dtype=np.float32)
    if not len(good):
        return shifts
    queries, query_of = distinct_ids([pairs.query_ids[row] for row in good])
    passages, passage_of = distinct_ids([pairs.passage_ids[row] for row in good])
    size = len(lexical.token_weights)
    asked, known = _counts(queries, size), _counts(passages, size)
    asked.data = lexical.token_weights[asked.indices].astype(np.float64)
    lengths = np.array([len(one) for one in passages], dtype=np.float64)
    known.data /= known.data + np.repeat(lexical.damping(lengths), np.diff(known.indptr))
    most = np.asarray(asked.sum(axis=1)).ravel()
    for start in range(0, len(good), _AT_ONCE):
        query, passage = (of[start : start + _AT_ONCE] for of in (query_of, passage_of))
        bm25 = np.asarray(asked[query].multiply(known[passage]).sum(axis=1)).ravel()
        logs = np.log1p(bm25) - np.log1p(most[query])
        shifts[good[start : start + _AT_ONCE]] = lexical.weight * (logs - lexical.centre)
    return shifts


def moved(outputs: NDArray[np.float32], shifts: NDArray[np.float32]) -> NDArray[np.float32]:
    """float32[B, 2] scores and logits, the logits moved by float32[B]."""
    logits = outputs[:, 1].astype(np.float64) + shifts
    scores = 0.5 * (1 + np.tanh(logits / 2))  # the sigmoid, which never overflows
    result: NDArray[np.float32] = np.stack((scores, logits), axis=1).astype(np.float32)
    return result


def _counts(texts: Sequence[Ids], size: int) -> Any:
    """float64[texts, size], sparse: how often each token occurs in each text."""
    from scipy.sparse import csr_matrix  # 0.1 s that a worker whose model has no lexical part need not wait

    rows = np.repeat(np.arange(len(texts), dtype=np.int64), [len(one) for one in texts])
    keys, counts = np.unique(rows * size + np.concatenate(texts), return_counts=True)
    starts = np.searchsorted(keys, np.arange(len(texts) + 1, dtype=np.int64) * size)
    return csr_matrix((counts.astype(np.float64), keys % size, starts), shape=(len(texts), size))
