"""What runs the model on a padded batch. A backend is a module with `load(folder, precision) -> LoadedBackend`."""

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mkdm.encoding import Batch
from mkdm.errors import ConfigError

BACKENDS = {"torch": "mkdm.torch_backend"}
PRECISIONS = ("auto", "fp32", "bf16", "fp16")


class Backend(Protocol):
    """Runs one model at one precision on one device.

    Attributes:
        precision: fp32, bf16 or fp16, after `auto` was settled.
        token_budget: padded tokens of a batch that suit the device.
    """

    precision: str
    token_budget: int

    def score(self, batch: Batch) -> NDArray[np.float32]:
        """int64[B, L] inputs -> float32[B, 2]: the score in [0, 1], and its logit."""
        ...


@dataclass(frozen=True)
class LoadedBackend:
    """A backend with the tokenizer, token limit and version of the model that it runs."""

    backend: Backend
    tokenizer: Any
    max_length: int
    model_version: str


def load_backend(folder: str | Path, backend: str, precision: str) -> LoadedBackend:
    """Load the model at `folder` into a backend.

    Raises:
        ConfigError: no such backend or precision, or the machine cannot run it.
        ModelError: the folder does not load.
    """
    if precision not in PRECISIONS:
        raise ConfigError(f"no precision {precision!r}: choose one of {', '.join(PRECISIONS)}")
    name = "torch" if backend == "auto" else backend
    if name not in BACKENDS:
        raise ConfigError(f"no backend {backend!r}: choose auto or one of {', '.join(BACKENDS)}")
    loaded: LoadedBackend = import_module(BACKENDS[name]).load(folder, precision)
    return loaded
