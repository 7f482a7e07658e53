"""How much arithmetic a plain encoder needs for a pair: the yardstick of `mkdm benchmark`."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def pair_gflop(
    shape: Any, lengths: NDArray[np.int32], separate_layers: int = 0, text_lengths: NDArray[np.int64] | None = None
) -> float:
    """The mean GFLOP of a pair in a plain encoder, a multiply and an add counted as two.

    A layer costs 2L · (4H² + 2HF) for its six products with weights, which is 24·L·H² where F = 4H, and 4·L²·H for
    attention. Embeddings, norms and headers are left out: together below 1 %. Separate layers read each text once, not
    each pair.

    Args:
        shape: the encoder's config: hidden_size H, intermediate_size F, num_hidden_layers.
        lengths: int32[n], tokens L of each pair, special tokens included, without padding.
        separate_layers: s, how many layers read texts apart.
        text_lengths: with separate layers int64[texts], tokens of each text of the n pairs.
    """
    work = (int(shape.num_hidden_layers) - separate_layers) * _layer_flop(shape, lengths).sum()
    if separate_layers and text_lengths is not None:
        work += separate_layers * _layer_flop(shape, text_lengths).sum()
    return float(work / len(lengths) / 1e9)


def _layer_flop(shape: Any, lengths: NDArray[Any]) -> NDArray[np.float64]:
    hidden, inner = int(shape.hidden_size), int(shape.intermediate_size)
    tokens = lengths.astype(np.float64)
    flop: NDArray[np.float64] = 2 * (4 * hidden**2 + 2 * hidden * inner) * tokens + 4 * hidden * tokens**2
    return flop


def lean_cost(num_layers: int, separate_layers: int = 0) -> dict[str, int]:
    """What the lean encoder of a BERT does for a token, in H² (a multiply and an add counted as one).

    A layer has 12. The first layer's three projections are looked up, and the last layer, for [CLS] alone, is next to
    nothing; see `mkdm.scoring.lean_encoder` and `mkdm.scoring.separate_encoder`.

    Args:
        num_layers: k.
        separate_layers: s, at most k − 2.

    Returns:
        text_h2, of a text in a block; pair_h2, of a pair: 9 + 12·(k − s − 2).
    """
    pair = max(0, 9 + 12 * (num_layers - separate_layers - 2))
    return {"text_h2": 12 * separate_layers, "pair_h2": pair}
