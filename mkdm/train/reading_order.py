"""Who reads which row groups of a training set, and in which order: decided by seed and epoch, before any is read."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mkdm.errors import InputError
from mkdm.train.training_set import TrainingFile, TrainingSet


@dataclass(frozen=True)
class RowGroup:
    """One row group of a split.

    Attributes:
        index: its number within the split, which with seed and epoch decides the order of its rows.
        number: its number within the file.
    """

    index: int
    file: TrainingFile
    number: int

    @property
    def rows(self) -> int:
        """How many rows it has."""
        return self.file.row_groups[self.number]


def plan(
    training_set: TrainingSet, split: str, *, seed: int, epoch: int, world: int = 1, shuffle: bool = True
) -> list[list[RowGroup]]:
    """Which row groups each rank reads in an epoch, and in which order: decided by seed and epoch alone.

    Each row group goes to exactly one rank. They are dealt in rounds, one to each rank, the larger ones of a round to
    the ranks that have fewer rows so far: ranks differ by less than one row group, and every epoch deals anew.

    Raises:
        InputError: the split has fewer row groups than there are ranks.
    """
    files = training_set.files_of(split)
    each = [(file, number) for file in files for number in range(len(file.row_groups))]
    groups = [RowGroup(index, file, number) for index, (file, number) in enumerate(each)]
    if len(groups) < world:
        raise InputError(
            f"the split {split} of {training_set.folder} has {len(groups)} row groups, fewer than the {world} ranks: "
            f"export it with a smaller --row-group-rows, or train on fewer"
        )
    if shuffle:
        groups = [groups[i] for i in np.random.default_rng([seed, epoch]).permutation(len(groups))]
    ranks: list[list[RowGroup]] = [[] for _ in range(world)]
    rows = [0] * world
    for start in range(0, len(groups), world):
        poorest = sorted(range(world), key=rows.__getitem__)
        largest = sorted(groups[start : start + world], key=lambda group: -group.rows)
        for rank, group in zip(poorest, largest, strict=False):
            ranks[rank].append(group)
            rows[rank] += group.rows
    return ranks


def rank_rows(training_set: TrainingSet, split: str, *, seed: int, epoch: int, world: int) -> list[int]:
    """How many rows each rank gets in an epoch, known beforehand; who stops at the least has equal steps."""
    ranks = plan(training_set, split, seed=seed, epoch=epoch, world=world)
    return [sum(group.rows for group in groups) for groups in ranks]


def row_order(group: RowGroup, *, seed: int, epoch: int) -> NDArray[np.int64]:
    """The order of a row group's rows in an epoch, whichever rank and worker reads it."""
    return np.random.default_rng([seed, epoch, group.index]).permutation(group.rows)
