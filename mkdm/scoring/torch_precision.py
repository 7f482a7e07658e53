"""The precision that suits a device where torch runs a model in this process alone, told without the model."""

import time
from functools import lru_cache

import torch

BF16_GAIN = 0.8
"""bf16 must take less than this share of fp32's time to be worth its rounding."""


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
