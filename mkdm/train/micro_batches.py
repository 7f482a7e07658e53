"""From the row groups of a training set to optimiser steps: micro-batches of rows that have a label to teach."""

import math
from collections.abc import Generator
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mkdm.columns import GOLDEN_LABEL
from mkdm.errors import ConfigError, InputError
from mkdm.scoring import Batch, Template, token_budget_batches
from mkdm.train.reading_order import plan
from mkdm.train.rows import NO_GOLDEN_LABEL, TrainingRows, soft_label_column
from mkdm.train.training_set import TrainingSet

FEEDS = {"petastorm": "mkdm.train.petastorm_feed", "arrow": "mkdm.train.arrow_feed"}


@dataclass(frozen=True)
class StageFeed:
    """The rows of one stage of training, as every rank sees them.

    Attributes:
        training_set: checked to be whole.
        split: which of its splits.
        columns: which of its teachers, by number, in the order of the student's soft headers.
        golden: whether golden labels are trained on.
        batch_size: rows of a step over all ranks.
        name: petastorm or arrow.
        whole_queries: whether the pairs of a query, as far as a row group holds them, follow one another.
    """

    training_set: TrainingSet
    split: str
    columns: tuple[int, ...]
    golden: bool
    batch_size: int
    name: str
    workers: int
    seed: int
    rank: int = 0
    world: int = 1
    whole_queries: bool = False

    @property
    def rank_batch(self) -> int:
        """Rows of a step on this rank."""
        return max(1, self.batch_size // self.world)

    def usable(self) -> dict[str, list[int]]:
        """By file, how many rows of each row group have a label that is trained on; only label columns are read.

        Raises:
            InputError: none has.
        """
        system, root = fsspec.core.url_to_fs(self.training_set.folder)
        names = [GOLDEN_LABEL, *(soft_label_column(column) for column in self.columns)]
        counts: dict[str, list[int]] = {}
        for file in self.training_set.files_of(self.split):
            with system.open(f"{root}/{file.path}") as opened:
                parquet = pq.ParquetFile(opened)
                groups = [parquet.read_row_group(number, columns=names) for number in range(len(file.row_groups))]
            counts[file.path] = [self._teaching_rows(group) for group in groups]
        if not any(map(sum, counts.values())):
            teachers = ", ".join(self.training_set.teacher_ids[column] for column in self.columns) or "no teacher"
            raise InputError(
                f"no row of the split {self.split} of {self.training_set.folder} has a label of {teachers}"
                f"{' or a golden label' if self.golden else ''}: there is nothing to train on"
            )
        return counts

    def steps_of_epochs(self, epochs: int) -> list[int]:
        """Steps of each epoch: as many as the rank with the fewest usable rows can take, so that all take as many."""
        usable = self.usable()
        steps = []
        for epoch in range(epochs):
            ranks = plan(self.training_set, self.split, seed=self.seed, epoch=epoch, world=self.world)
            rows = [sum(usable[group.file.path][group.number] for group in groups) for groups in ranks]
            if min(rows) == 0:
                raise InputError(
                    f"a rank of {self.world} has no row to train on in epoch {epoch}: train on fewer processes, or "
                    f"export {self.training_set.folder} with a smaller --row-group-rows"
                )
            steps.append(math.ceil(min(rows) / self.rank_batch))
        return steps

    def epoch(self, epoch: int, skip: int = 0) -> Generator[TrainingRows]:
        """The rows of each step of an epoch on this rank, in an order that seed and epoch decide.

        Args:
            skip: steps that a run has done before it was cut off; their rows are read and left out.
        """
        read: Any = import_module(FEEDS[self.name]).row_groups
        groups = read(
            self.training_set,
            self.split,
            seed=self.seed,
            epoch=epoch,
            rank=self.rank,
            world=self.world,
            workers=self.workers,
        )
        step, size = 0, self.rank_batch
        kept: list[TrainingRows] = []
        try:
            for group in groups:
                teaches = self._teaches(group.golden_labels, group.soft_labels[:, list(self.columns)])
                taught = group.take(np.flatnonzero(teaches))
                if self.whole_queries and len(taught):
                    query = query_numbers(taught, self.training_set.template)
                    taught = taught.take(np.argsort(query, kind="stable"))
                rows = TrainingRows.concat([*kept, taught])
                while len(rows) >= size:
                    if step >= skip:
                        yield rows.take(np.arange(size))
                    step, rows = step + 1, rows.take(np.arange(size, len(rows)))
                kept = [rows]
            if kept and len(kept[0]) and step >= skip:
                yield kept[0]
        finally:
            groups.close()

    def _teaching_rows(self, group: pa.Table) -> int:
        soft_labels = np.empty((len(group), len(self.columns)), dtype=np.float32)
        for number, column in enumerate(self.columns):
            soft_labels[:, number] = group[soft_label_column(column)].to_numpy()
        return int(self._teaches(group[GOLDEN_LABEL].to_numpy(), soft_labels).sum())

    def _teaches(self, golden_labels: NDArray[np.int8], soft_labels: NDArray[np.float32]) -> NDArray[np.bool_]:
        """bool[rows]: whether a row has a label that is trained on."""
        golden = (golden_labels != NO_GOLDEN_LABEL) & self.golden
        teaches: NDArray[np.bool_] = golden | ~np.isnan(soft_labels).all(axis=1)
        return teaches


def teacher_columns(training_set: TrainingSet, teacher_ids: list[str]) -> tuple[int, ...]:
    """Which soft labels of a training set belong to these teachers.

    Raises:
        ConfigError: it has no soft labels of one of them.
    """
    missing = [teacher for teacher in teacher_ids if teacher not in training_set.teacher_ids]
    if missing:
        there = ", ".join(training_set.teacher_ids) or "none"
        raise ConfigError(
            f"the training set at {training_set.folder} has no teacher {missing[0]!r}; it has {there}: choose "
            f"--teachers of these, or label with it and export again"
        )
    return tuple(map(training_set.teacher_ids.index, teacher_ids))


def micro_batches(rows: TrainingRows, token_budget: int, template: Template | None = None) -> list[TrainingRows]:
    """The rows of a step, sorted by length and cut by token budget.

    Args:
        template: of the set, to keep the pairs of a query in one batch.
    """
    if template is None:
        return [rows.take(part) for part in token_budget_batches(rows.lengths, token_budget)]
    query = query_numbers(rows, template)
    sizes = np.bincount(query)
    longest = np.zeros(len(sizes), dtype=np.int32)
    np.maximum.at(longest, query, rows.lengths)
    parts: list[list[int]] = []
    held = 0
    for number in np.argsort(-longest, kind="stable").tolist():
        if not parts or (held + sizes[number]) * longest[parts[-1][0]] > token_budget:
            parts.append([])
            held = 0
        parts[-1].append(number)
        held += sizes[number]
    return [rows.take(np.flatnonzero(np.isin(query, part))) for part in parts]


def query_numbers(rows: TrainingRows, template: Template) -> NDArray[np.int64]:
    """int64[rows]: rows of equal query tokens have equal numbers, from 0 in the order of their first row."""
    width = int(rows.query_lengths.max(initial=0))
    place = np.arange(width)
    tokens = rows.input_ids[:, template.query_start : template.query_start + width]
    tokens = np.where(place < rows.query_lengths[:, None], tokens, -1)
    _, first, number = np.unique(tokens, axis=0, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    ranked: NDArray[np.int64] = rank[number.reshape(-1)]
    return ranked


def padded_batch(rows: TrainingRows, template: Template) -> Batch:
    """The inputs of a forward pass: int64[B, L] each, L the longest row's tokens."""
    width = int(rows.lengths.max())
    positions = np.arange(width)
    inside = positions < rows.lengths[:, None]
    types = None
    if template.has_types:
        second = positions >= template.second_type_start + rows.query_lengths[:, None]
        types = np.where(second & inside, template.second_type, 0).astype(np.int64)
    return Batch(rows.input_ids[:, :width].astype(np.int64), inside.astype(np.int64), types)
