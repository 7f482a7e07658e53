"""What this machine can run, told before a model is loaded. Needs no torch."""

import os
import platform
import socket
from importlib.util import find_spec
from pathlib import Path

_MULTIPLY_INT8 = {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"}
_MULTIPLY_BF16 = {"avx512_bf16", "amx_bf16", "bf16"}


def multiplies_int8() -> bool:
    """Whether the CPU has an instruction that sums products of int8 exactly; AVX2 alone cuts them at 16 bits."""
    return not cpu_flags().isdisjoint(_MULTIPLY_INT8)


def multiplies_bf16() -> bool:
    """Whether the CPU has an instruction that multiplies bf16."""
    return not cpu_flags().isdisjoint(_MULTIPLY_BF16)


def cpu_flags() -> set[str]:
    """What this CPU can, by Linux's words."""
    lines = _cpuinfo()
    return {flag for line in lines if line.startswith(("flags", "Features")) for flag in line.partition(":")[2].split()}


def has_gpu() -> bool:
    """Whether torch is here and finds a CUDA device."""
    if find_spec("torch") is None:  # an environment packed with --runtime openvino
        return False
    import torch

    return torch.cuda.is_available()


def machine_name() -> str:
    """Host, and the name of its CPU with the cores that this process may use."""
    return f"{socket.gethostname()} ({cpu_name()}, {len(os.sched_getaffinity(0))} cores)"


def cpu_name() -> str:
    """The CPU's name, or failing that its architecture."""
    names = [line.partition(":")[2].strip() for line in _cpuinfo() if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _cpuinfo() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []
