"""How much arithmetic a plain encoder needs for a pair: the yardstick of `mkdm benchmark`."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def pair_gflop(shape: Any, lengths: NDArray[np.int32]) -> float:
    """The mean GFLOP of a pair in a plain encoder, a multiply and an add counted as two.

    A layer costs 2L · (4H² + 2HF) for its six products with weights, which is 24·L·H² where F = 4H, and 4·L²·H for
    attention. Embeddings, norms and headers are left out: together below 1 %.

    Args:
        shape: the encoder's config: hidden_size H, intermediate_size F, num_hidden_layers.
        lengths: int32[n], tokens L of each pair, special tokens included, without padding.
    """
    hidden, inner = int(shape.hidden_size), int(shape.intermediate_size)
    tokens = lengths.astype(np.float64)
    layer = 2 * (4 * hidden**2 + 2 * hidden * inner) * tokens + 4 * hidden * tokens**2
    return float(shape.num_hidden_layers * layer.mean() / 1e9)
