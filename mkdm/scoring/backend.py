"""What runs the model on a padded batch: a backend is a module with `load(folder, precision, threads, streams)`."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mkdm.model import Wording
from mkdm.scoring.encoding import Batch, PairEncoder
from mkdm.scoring.prompted import pair_encoder

WINDOW = 4096


class Backend(Protocol):
    """Runs one model at one precision on one device.

    Attributes:
        precision: fp32, bf16, fp16 or int8, after `auto` was settled.
        token_budget: padded tokens of a batch that suit the device.
        window: pairs that are sorted together: enough for tight batches, few enough to hold their token ids.
        streams: how many threads may call `score` at once, with profit.
        out_of_memory: what `score` raises for a batch that is too large for the device.
    """

    precision: str
    token_budget: int
    window: int
    streams: int
    out_of_memory: tuple[type[Exception], ...]

    def score(self, batch: Batch) -> NDArray[np.float32]:
        """int64[B, L] inputs -> float32[B, 2]: the score in [0, 1], and its logit."""
        ...


@dataclass(frozen=True)
class LoadedBackend:
    """A backend with the tokenizer, token limit, version and wording of the model that it runs."""

    backend: Backend
    tokenizer: Any
    max_length: int
    model_version: str
    wording: Wording | None = None

    def encoder(self, max_length: int | None = None) -> PairEncoder:
        """What makes the model's inputs of pairs of texts."""
        return pair_encoder(self.tokenizer, max_length or self.max_length, self.wording)
