"""Host memory that a GPU is sent batches from: pinned, used again, one part filled while another is on its way."""

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

SLOTS = 2


class HostBuffers:
    """The buffers of one thread, in turn. A slot is filled again once its last copy is done.

    Args:
        pinned: whether the GPU may read them while the CPU goes on.
    """

    def __init__(self, pinned: bool, slots: int = SLOTS) -> None:
        self._pinned = pinned
        self._slots: list[dict[str, Tensor]] = [{} for _ in range(slots)]
        self._copied: list[Any] = [None] * slots
        self._at = -1

    def fill(self, arrays: dict[str, NDArray[Any]], rows: int) -> dict[str, Tensor]:
        """The arrays, [B, L] each, as tensors [rows, L] in the next slot; further rows repeat the first.

        Valid until the slot comes round again.
        """
        self._at = (self._at + 1) % len(self._slots)
        if self._copied[self._at] is not None:
            self._copied[self._at].synchronize()
            self._copied[self._at] = None
        filled = {}
        for name, array in arrays.items():
            tensor = self._room(name, rows * array.shape[1], array).view(rows, array.shape[1])
            view = tensor.numpy()
            view[: len(array)] = array
            view[len(array) :] = array[0]
            filled[name] = tensor
        return filled

    def sent(self, event: Any) -> None:
        """Keep what tells, by `synchronize()`, that the copy of what was filled last is done."""
        self._copied[self._at] = event

    def _room(self, name: str, size: int, array: NDArray[Any]) -> Tensor:
        slot = self._slots[self._at]
        if name not in slot or slot[name].numel() < size:
            kind = torch.from_numpy(array[:0]).dtype
            slot[name] = torch.empty(size, dtype=kind, pin_memory=self._pinned)
        return slot[name][:size]
