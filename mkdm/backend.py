"""What runs the model on a padded batch: a backend is a module with `load(folder, precision, threads, streams)`."""

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mkdm.encoding import Batch
from mkdm.errors import ConfigError
from mkdm.exported import check_backend, read_export

BACKENDS = {
    "torch": "mkdm.torch_backend",
    "torch-compile": "mkdm.compiled_backend",
    "openvino": "mkdm.openvino_backend",
}
WINDOW = 4096
PRECISIONS = ("auto", "fp32", "bf16", "fp16", "int8")


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
    """A backend with the tokenizer, token limit and version of the model that it runs."""

    backend: Backend
    tokenizer: Any
    max_length: int
    model_version: str


def load_backend(
    folder: str | Path, backend: str, precision: str, threads: int | None = None, streams: int | None = None
) -> LoadedBackend:
    """Load the model at `folder` into a backend.

    Args:
        backend: auto takes openvino where the folder has an IR file of that precision and there is no GPU, else torch.
        threads: cores to use on a CPU; None takes all.
        streams: batches that share them; None takes what suits the backend.

    Raises:
        ConfigError: no such backend or precision, or the machine cannot run it.
        ModelError: the folder does not load, or has no such IR file.
    """
    if precision not in PRECISIONS:
        raise ConfigError(f"no precision {precision!r}: choose one of {', '.join(PRECISIONS)}")
    if backend not in (*BACKENDS, "auto"):
        raise ConfigError(f"no backend {backend!r}: choose auto or one of {', '.join(BACKENDS)}")
    check_backend(folder, backend, precision)
    name = _suitable(folder, precision) if backend == "auto" else backend
    if name == "openvino" and find_spec("openvino") is None:
        raise ConfigError("the openvino backend needs the extra `cpu`: pip install 'mkdm[cpu]'")
    if name != "openvino" and find_spec("torch") is None:
        raise ConfigError(
            f"there is no torch in this environment, and {folder} has no IR file that this machine runs well at "
            f"--precision {precision}: run mkdm export-model on it, or pack the environment with --runtime torch"
        )
    loaded: LoadedBackend = import_module(BACKENDS[name]).load(folder, precision, threads, streams)
    return loaded


def _suitable(folder: str | Path, precision: str) -> str:
    export = read_export(folder)
    if export is None or find_spec("openvino") is None:
        return "torch"
    from mkdm.openvino_backend import machine_precisions

    if precision != "int8" and _gpu():
        return "torch"
    return "openvino" if export.choose(precision, machine_precisions()) else "torch"


def _gpu() -> bool:
    if find_spec("torch") is None:  # an environment packed with --runtime openvino
        return False
    import torch

    return torch.cuda.is_available()
