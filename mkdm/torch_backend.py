"""The torch backend, for CPU and CUDA: CLS-only last layer, inference mode, bf16 where the machine has it."""

import time
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mkdm.backend import LoadedBackend
from mkdm.checkpoint import PairModel, load_checkpoint
from mkdm.cls_only import keep_cls_only
from mkdm.encoding import Batch, PairEncoder
from mkdm.errors import ConfigError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
CPU_TOKEN_BUDGET = 2048
CUDA_TOKEN_BUDGET = 131072
BF16_GAIN = 0.8
"""bf16 must take less than this share of fp32's time to be worth its rounding."""


class TorchBackend:
    """Runs a `PairModel` on the first CUDA device if there is one, else on all the CPU's cores.

    Args:
        model: in fp32, on the CPU.
        precision: fp32, bf16, fp16 or auto.

    Raises:
        ConfigError: fp16 on a CPU, which torch runs slower than fp32.
    """

    def __init__(self, model: PairModel, precision: str = "auto") -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.precision = fastest_precision(self.device) if precision == "auto" else precision
        if self.precision == "fp16" and self.device.type == "cpu":
            raise ConfigError("fp16 needs a GPU: use bf16, fp32 or auto on a CPU")
        self.token_budget = CUDA_TOKEN_BUDGET if self.device.type == "cuda" else CPU_TOKEN_BUDGET
        self._model = model.to(self.device, DTYPES[self.precision]).eval()

    @torch.inference_mode()
    def score(self, batch: Batch) -> NDArray[np.float32]:
        """int64[B, L] inputs -> float32[B, 2], score and logit."""
        result: NDArray[np.float32] = self._model(**to_tensors(batch, self.device)).float().cpu().numpy()
        return result


def to_tensors(batch: Batch, device: torch.device) -> dict[str, Tensor]:
    """The inputs of a forward pass, int64[B, L] each, on the device."""
    arrays = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    if batch.token_type_ids is not None:
        arrays["token_type_ids"] = batch.token_type_ids
    return {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}


@lru_cache(maxsize=2)
def fastest_precision(device: torch.device) -> str:
    """bf16 where the device is quicker with it, else fp16 on a GPU and fp32 on a CPU.

    On a CPU a short probe tells, since flags do not: with AVX-512's bf16 dot products torch's linear layers ran at
    0.6 × their fp32 rate on a Xeon without AMX (146 against 245 GFLOP/s), and at 2.8 × on a Zen 4 (384 against 137).
    """
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "bf16" if _linear_seconds(torch.bfloat16) < BF16_GAIN * _linear_seconds(torch.float32) else "fp32"


@torch.inference_mode()
def _linear_seconds(dtype: torch.dtype) -> float:
    """The shortest of several linear layers of a student's size, about 2 ms each."""
    rows, weight = torch.ones(512, 384, dtype=dtype), torch.ones(1536, 384, dtype=dtype)
    seconds = []
    for _ in range(8):
        started = time.perf_counter()
        torch.nn.functional.linear(rows, weight)
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def load(folder: str | Path, precision: str) -> LoadedBackend:
    """Load a model folder; see `load_backend`."""
    model, tokenizer, version = load_checkpoint(folder)
    spare_last_layer(model, PairEncoder(tokenizer, model.max_length))
    return LoadedBackend(TorchBackend(model, precision), tokenizer, model.max_length, version)


@torch.inference_mode()
def spare_last_layer(model: PairModel, encoder: PairEncoder) -> bool:
    """Switch to the CLS-only last layer if that leaves the scores of two probe pairs, one padded, within 1e-5.

    Returns:
        Whether it did. A model that reads more than the first position keeps its full last layer.
    """
    probe = encoder.batch(encoder.encode(["a", "a a"], ["a a a a", "a"]), np.arange(2))
    tensors = to_tensors(probe, torch.device("cpu"))
    plain = model(**tensors)
    undo = keep_cls_only(model.encoder)
    if undo is None:
        return False
    try:
        same = torch.allclose(model(**tensors), plain, rtol=0, atol=1e-5)
    except (RuntimeError, IndexError):
        same = False
    if not same:
        undo()
    return same
