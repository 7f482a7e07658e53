"""Batches of several shapes for the gate: a file may be right on some and wrong on others, such as padded ones."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mkdm.export.quality_gate import ValidationPairs
from mkdm.scoring import EncodedPairs, LoadedBackend, PairEncoder, score_at_once

Shape = tuple[EncodedPairs, NDArray[np.float32]]
"""The pairs of a batch, and float32[B, 2]: what torch says of them in fp32."""
_ROWS = 8


def batches_of_all_shapes(encoder: PairEncoder, validation: ValidationPairs) -> list[EncodedPairs]:
    """By batch its pairs: single ones, some of one length, some of all lengths, the shortest and the longest.

    Args:
        validation: pairs that can be encoded.
    """
    pairs = encoder.encode(validation.queries, validation.passages)
    order = np.argsort(pairs.lengths, kind="stable")
    spread = order[np.linspace(0, len(order) - 1, min(_ROWS, len(order))).astype(int)]
    alone = [np.array([row]) for row in spread]
    lengths, counts = np.unique(pairs.lengths, return_counts=True)
    common = np.flatnonzero(pairs.lengths == lengths[np.argmax(counts)])[:_ROWS]
    ends = np.array([order[0], order[-1]])
    return [
        encoder.encode([validation.queries[row] for row in rows], [validation.passages[row] for row in rows])
        for rows in (*alone, common, ends, spread, order[:_ROWS], order[-_ROWS:])
    ]


def in_all_shapes(loaded: LoadedBackend, shapes: Sequence[Shape], figures: dict[str, float]) -> dict[str, float]:
    """The figures not_finite and max_score_drift, with what the batches of all shapes add to them.

    Args:
        figures: those of the validation pairs; see `quality`.
    """
    drift, not_finite = figures["max_score_drift"], figures["not_finite"]
    encoder = loaded.encoder()
    for pairs, right in shapes:
        found = score_at_once(loaded.backend, encoder, pairs)
        if found.shape != right.shape:  # a graph that took the shape of its example for its own
            return {"not_finite": float(len(right)), "max_score_drift": 1.0}
        finite = np.isfinite(found[:, 0])
        not_finite += float(np.sum(~finite))
        drift = max(drift, float(np.abs(found[finite, 0] - right[finite, 0]).max(initial=0.0)))
    return {"not_finite": not_finite, "max_score_drift": drift}
