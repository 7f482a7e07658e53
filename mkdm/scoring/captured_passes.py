"""Forward passes that were captured for a shape, kept while their memory fits: one launch in place of hundreds."""

import warnings
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

from torch import Tensor

Inputs = dict[str, Tensor]


class CapturedPass(Protocol):
    """A pass for inputs of one shape.

    Attributes:
        bytes: of the device's memory that it holds.
    """

    bytes: int

    def run(self, inputs: Inputs) -> Tensor:
        """What the model gives; valid until the next run."""
        ...


class CapturedPasses:
    """The passes of one thread by shape. A shape is captured when it comes a second time; the oldest goes first.

    Args:
        plain: the model.
        capture: makes a pass of it for inputs like these. When it fails, the plain model runs from then on.
        most_bytes: of all passes together.
    """

    def __init__(
        self, plain: Callable[..., Tensor], capture: Callable[[Inputs], CapturedPass], most_bytes: int
    ) -> None:
        self._plain, self._most_bytes = plain, most_bytes
        self._capture: Callable[[Inputs], CapturedPass] | None = capture
        self._seen: set[tuple[int, ...]] = set()
        self._passes: OrderedDict[tuple[int, ...], CapturedPass] = OrderedDict()

    def run(self, inputs: Inputs) -> Tensor:
        """The model's outputs for inputs [B, L] each; valid until the next run."""
        shape = tuple(inputs["input_ids"].shape)
        found = self._passes.get(shape)
        if found is None and self._capture is not None and shape in self._seen:
            found = self._captured(shape, inputs)
        self._seen.add(shape)
        if found is None:
            return self._plain(**inputs)
        self._passes.move_to_end(shape)
        return found.run(inputs)

    def _captured(self, shape: tuple[int, ...], inputs: Inputs) -> CapturedPass | None:
        assert self._capture is not None
        try:
            found = self._capture(inputs)
        except RuntimeError as error:  # torch's, and CUDA's
            self._capture = None
            self._passes.clear()
            reason = " ".join(str(error).split())[:200]
            warnings.warn(f"no CUDA graphs here, batches run one kernel at a time: {reason}", stacklevel=2)
            return None
        self._passes[shape] = found
        while len(self._passes) > 1 and sum(one.bytes for one in self._passes.values()) > self._most_bytes:
            self._passes.popitem(last=False)
        return found
