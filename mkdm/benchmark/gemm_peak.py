"""Measures this machine's fastest matrix product by precision: `python -m mkdm.benchmark.gemm_peak` prints it as JSON.

What a scorer reaches is told as a share of it.
"""

import json
import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch

from mkdm.config import parse_config, run_command
from mkdm.quiet import quiet_openvino
from mkdm.scoring import cpu_name

CPU_SHAPES = ((2048, 768, 3072), (2048, 768, 768), (2048, 3072, 768), (512, 768, 3072))
"""Rows, inputs and outputs of the products: those of a BERT-base layer."""
CUDA_SHAPES = ((8192, 8192, 8192), (16384, 768, 3072))
TIMES = 12


@dataclass(frozen=True)
class PeakConfig:
    """Measure the machine's fastest matrix product by precision, and say what machine it is."""


def torch_peaks(device: str) -> dict[str, float]:
    """By precision, the GFLOP/s of torch's fastest product of `CPU_SHAPES` or `CUDA_SHAPES`."""
    cuda = device == "cuda"
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16} | ({"fp16": torch.float16} if cuda else {})

    def product(shape: tuple[int, int, int], dtype: torch.dtype) -> Callable[[], float]:
        left = torch.randn(shape[0], shape[1], device=device).to(dtype)
        weight = torch.randn(shape[2], shape[1], device=device).to(dtype)

        @torch.inference_mode()
        def run() -> float:
            started = time.perf_counter()
            torch.nn.functional.linear(left, weight)
            if cuda:
                torch.cuda.synchronize()
            return time.perf_counter() - started

        return run

    shapes = CUDA_SHAPES if cuda else CPU_SHAPES
    return {name: max(_gflops(shape, product(shape, dtype)) for shape in shapes) for name, dtype in dtypes.items()}


def openvino_peaks() -> dict[str, float]:
    """By precision, the GFLOP/s of OpenVINO's fastest fully connected layer, by its own kernel times."""
    with quiet_openvino():
        return _openvino_peaks()


def _openvino_peaks() -> dict[str, float]:
    import nncf
    import openvino
    from openvino import opset13

    logging.getLogger("nncf").setLevel(logging.ERROR)
    core = openvino.Core()
    peaks = {"fp32": 0.0, "bf16": 0.0, "int8": 0.0}
    for shape in CPU_SHAPES:
        rows, inputs, outputs = shape
        draw = np.random.default_rng(0)
        left = draw.standard_normal((rows, inputs)).astype(np.float32)
        parameter = opset13.parameter([rows, inputs], np.float32)
        weight = opset13.constant((draw.standard_normal((outputs, inputs)) * 0.02).astype(np.float32))
        product = opset13.matmul(parameter, weight, False, True)
        plain = openvino.Model([opset13.result(product)], [parameter], "product")
        quantised = nncf.quantize(plain, nncf.Dataset([left]), subset_size=1)
        for name, model, hint in (("fp32", plain, "f32"), ("bf16", plain, "bf16"), ("int8", quantised, "f32")):
            settings = {"INFERENCE_PRECISION_HINT": hint, "NUM_STREAMS": 1, "PERF_COUNT": True}
            request = core.compile_model(model, "CPU", settings).create_infer_request()
            peaks[name] = max(peaks[name], _gflops(shape, lambda: _kernel_seconds(request, left)))  # noqa: B023
    return peaks


def _kernel_seconds(request: Any, left: np.ndarray[Any, Any]) -> float:
    request.infer([left], share_inputs=True)
    return max(float(node.real_time.total_seconds()) for node in request.get_profiling_info())


def _gflops(shape: tuple[int, int, int], seconds: Callable[[], float]) -> float:
    return 2 * shape[0] * shape[1] * shape[2] / min(seconds() for _ in range(TIMES)) / 1e9


def machine() -> dict[str, Any]:
    """The machine: device (cpu or cuda), its name, cores, memory in GB, and the peaks in GFLOP/s by precision."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    peaks = torch_peaks(device)
    if device == "cpu" and find_spec("nncf"):
        for name, gflops in openvino_peaks().items():
            peaks[name] = max(gflops, peaks.get(name, 0.0))
    return {
        "device": device,
        "name": torch.cuda.get_device_name() if device == "cuda" else cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30,
        "peaks": peaks,
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parse_config("python -m mkdm.benchmark.gemm_peak", argv, PeakConfig)
    print(json.dumps(machine()))


if __name__ == "__main__":
    run_command(main)
