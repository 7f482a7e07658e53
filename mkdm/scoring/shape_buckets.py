"""Few shapes of batches for many lengths, so that what is made for a shape (a CUDA graph) is used again: no torch.

Lengths are rounded up to steps of an eighth, at least 8 tokens; rows to a full batch of that length, or a half, a
quarter and so on of one. Batches cut by rounded lengths are full but for the last of a block.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

STEP = 8


@dataclass(frozen=True)
class ShapeBuckets:
    """The shapes of batches.

    Attributes:
        token_budget: padded tokens of a full batch.
    """

    token_budget: int

    def lengths(self, lengths: NDArray[np.int32], most: int) -> NDArray[np.int32]:
        """int32[n], tokens of each row rounded up, to `most` at most; 0 stays."""
        octave = 2 ** np.floor(np.log2(np.maximum(lengths, 1) - 0.5)).clip(0)
        step = np.maximum(STEP, octave / STEP)
        rounded = np.minimum(np.ceil(lengths / step) * step, np.maximum(most, lengths))
        return np.asarray(rounded, dtype=np.int32)

    def rows(self, rows: int, length: int) -> int:
        """Rows to pad so many to; as many where the batch is larger than the budget allows."""
        full = max(1, self.token_budget // length)
        if rows > full:
            return rows
        while full > 1 and (half := -(-full // 2)) >= rows:
            full = half
        return full
