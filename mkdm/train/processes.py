"""The processes of a training run: one, or as many as torchrun started, which average their gradients (DDP)."""

import os
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Self

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mkdm.scoring import avoid_cudnn_attention
from mkdm.train.losses import LabelCounts


class Processes:
    """This process among its peers, over NCCL on GPUs and gloo on CPUs.

    Attributes:
        rank: number of this process.
        world: how many there are.
        device: that this process trains on.
    """

    def __init__(self) -> None:
        self.rank = int(os.environ.get("RANK", "0"))
        self.world = int(os.environ.get("WORLD_SIZE", "1"))
        cuda = torch.cuda.is_available()
        self.device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if cuda else torch.device("cpu")
        if cuda:
            avoid_cudnn_attention()

    @staticmethod
    def is_first() -> bool:
        """Whether this process speaks for all."""
        return os.environ.get("RANK", "0") == "0"

    @property
    def first(self) -> bool:
        """Whether this process writes and speaks for all."""
        return self.rank == 0

    def __enter__(self) -> Self:
        if self.world > 1:
            if self.device.type == "cuda":
                torch.cuda.set_device(self.device)
            dist.init_process_group("nccl" if self.device.type == "cuda" else "gloo")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.world > 1:
            dist.destroy_process_group()

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module, whose backward passes average the gradients of all processes."""
        if self.world == 1:
            return module
        devices = [self.device.index] if self.device.type == "cuda" else None
        return DistributedDataParallel(module, device_ids=devices)

    def accumulate(self, module: nn.Module, last: bool) -> AbstractContextManager[None]:
        """For the batches of a step: gradients are exchanged with the last one alone."""
        if last or not isinstance(module, DistributedDataParallel):
            return nullcontext()
        return module.no_sync()

    def sum(self, counts: LabelCounts) -> LabelCounts:
        """The label counts of all processes together."""
        if self.world == 1:
            return counts
        joined = torch.cat((counts.golden[None], counts.soft))
        dist.all_reduce(joined)
        return LabelCounts(joined[0], joined[1:])

    def sum_of(self, number: int) -> int:
        """The sum of a number over all processes."""
        return int(self.total(torch.tensor(number, device=self.device)))

    def total(self, tensor: Tensor) -> Tensor:
        """The sum of a tensor over all processes."""
        if self.world > 1:
            dist.all_reduce(tensor)
        return tensor

    def mean(self, tensor: Tensor) -> Tensor:
        """The mean of a tensor over all processes."""
        return self.total(tensor) / self.world

    def wait(self) -> None:
        """Until all processes are here."""
        if self.world > 1:
            dist.barrier()
