"""Feeds a training set through plain pyarrow: the same rows in the same order as `mkdm.train.petastorm_feed` gives."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mkdm.errors import InputError
from mkdm.train.reading_order import RowGroup, plan, row_order
from mkdm.train.rows import TrainingRows
from mkdm.train.training_set import TrainingSet

AHEAD = 2
"""Row groups that each worker reads ahead of the consumer."""


def row_groups(
    training_set: TrainingSet,
    split: str,
    *,
    seed: int,
    epoch: int,
    rank: int = 0,
    world: int = 1,
    workers: int = 1,
    shuffle: bool = True,
) -> Iterator[TrainingRows]:
    """One epoch of one rank, a row group at a time.

    Args:
        seed: with `epoch` decides the order of the row groups, to which rank each goes, and the order of their rows.
        workers: background threads; they change nothing in what comes out.
        shuffle: False gives the order in the files.

    Raises:
        InputError: the split is empty or unknown, has fewer row groups than ranks, or a file cannot be read any more.
    """
    groups = plan(training_set, split, seed=seed, epoch=epoch, world=world, shuffle=shuffle)[rank]
    system, root = fsspec.core.url_to_fs(training_set.folder)

    def read(group: RowGroup) -> TrainingRows:
        path = f"{root}/{group.file.path}"
        try:
            with system.open(path) as file:
                table = pq.ParquetFile(file).read_row_group(group.number, use_threads=False)
        except (OSError, pa.ArrowException) as error:
            raise InputError(f"{path} cannot be read any more ({error!r}): check the training set") from error
        columns = {name: _array(table[name].combine_chunks()) for name in table.column_names}
        rows = TrainingRows.of_columns(columns, len(training_set.teacher_ids))
        return rows.take(row_order(group, seed=seed, epoch=epoch)) if shuffle else rows

    todo = iter(groups)
    with ThreadPoolExecutor(workers, thread_name_prefix="arrow_feed") as pool:
        ahead: deque[Future[TrainingRows]] = deque(pool.submit(read, group) for group in islice(todo, workers * AHEAD))
        try:
            while ahead:
                rows = ahead.popleft().result()
                ahead.extend(pool.submit(read, group) for group in islice(todo, 1))
                yield rows
        finally:
            pool.shutdown(cancel_futures=True)


def _array(column: pa.Array) -> NDArray[Any]:
    if not pa.types.is_list(column.type):
        return np.asarray(column.to_numpy(zero_copy_only=False))
    return np.asarray(column.flatten().to_numpy()).reshape(len(column), -1)
