"""Captures a forward pass as a CUDA graph. Nothing else here needs a GPU to be tested; nobody has measured it yet."""

import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mkdm.scoring.captured_passes import Inputs

MOST_BYTES = 8 << 30
"""Of the device's memory that the graphs of one thread may hold."""
_WARM_UP = 2
_CAPTURING = threading.Lock()
"""Two captures at once would see each other's allocations."""


class CudaGraphPass:
    """The model's pass over inputs of one shape, on the current stream. Graphs of a thread share a pool of memory.

    Args:
        pool: of `torch.cuda.graph_pool_handle()`.

    Raises:
        RuntimeError: the pass does something that no graph can hold, such as a look at a value.
    """

    def __init__(self, model: Callable[..., Tensor], inputs: Inputs, pool: Any) -> None:
        device = next(iter(inputs.values())).device
        stream = torch.cuda.current_stream(device)
        self._inputs = {name: tensor.clone() for name, tensor in inputs.items()}
        with _CAPTURING:
            for _ in range(_WARM_UP):
                model(**self._inputs)
            stream.synchronize()
            before, _ = torch.cuda.mem_get_info(device)
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
                self._outputs = model(**self._inputs)
            after, _ = torch.cuda.mem_get_info(device)
        held = sum(tensor.numel() * tensor.element_size() for tensor in (*self._inputs.values(), self._outputs))
        self.bytes = max(held, before - after)

    def run(self, inputs: Inputs) -> Tensor:
        """See `CapturedPass`."""
        for name, tensor in inputs.items():
            self._inputs[name].copy_(tensor, non_blocking=True)
        self._graph.replay()
        return self._outputs


def cuda_graph_capture(model: Callable[..., Tensor]) -> Callable[[Inputs], CudaGraphPass]:
    """What captures passes of a model for one thread."""
    pool = torch.cuda.graph_pool_handle()
    return lambda inputs: CudaGraphPass(model, inputs, pool)
