"""Feeds a training set through Petastorm: the only module that imports it."""

import warnings
from collections.abc import Iterator
from typing import Any

import fsspec
import pyarrow as pa

from mkdm.errors import ConfigError, InputError
from mkdm.train.reading_order import plan, row_order
from mkdm.train.rows import PAIR_HASH, TrainingRows
from mkdm.train.training_set import TrainingFile, TrainingSet

# pyarrow 14 still has the classes that Petastorm reads with, and says at each use that it will not keep them
warnings.filterwarnings("ignore", category=FutureWarning, module=r"petastorm\.")

_NOT_IN_URLS = frozenset("#?;")


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
    """One epoch of one rank, a row group at a time; see `mkdm.train.arrow_feed.row_groups`, which gives the same.

    Petastorm cannot be left to shuffle and shard by itself: it deals row groups to ranks by their number alone, so that
    ranks differ by whole row groups and keep theirs in all epochs, and it keeps no order among several workers, since
    `ThreadPool.get_results` skips a worker to which nothing was handed out yet. So `plan` decides, and each worker is a
    reader of its own with one thread and its share of the planned files in their order, drawn in turn. Files are of one
    row group each, since a reader takes files, not row groups. Each file that it opens costs some milliseconds in a
    local folder, and some round trips to an object store: there, files should be large.

    Raises:
        ConfigError: Petastorm is not installed, or cannot name the folder.
        InputError: the split is empty or unknown, has fewer row groups than ranks, or a file cannot be read any more.
    """
    groups = plan(training_set, split, seed=seed, epoch=epoch, world=world, shuffle=shuffle)[rank]
    several = next((group.file.path for group in groups if len(group.file.row_groups) > 1), None)
    if several is not None:
        raise InputError(f"{training_set.folder}/{several} has more than one row group: take the plain pyarrow feed")
    shares = [[group.file for group in groups[worker::workers]] for worker in range(min(workers, len(groups)))]
    readers: list[Any] = []
    try:
        for share in shares:
            readers.append(_reader(training_set, share))
        for turn, group in enumerate(groups):
            columns = _next(readers[turn % len(readers)], training_set, group.file)
            rows = TrainingRows.of_columns(columns, len(training_set.teacher_ids))
            yield rows.take(row_order(group, seed=seed, epoch=epoch)) if shuffle else rows
    finally:
        for reader in readers:
            reader.stop()
        for reader in readers:
            reader.join()


def _reader(training_set: TrainingSet, files: list[TrainingFile]) -> Any:
    """A reader of the files in that order, with one background thread, for one epoch."""
    try:
        from petastorm import make_batch_reader
    except ImportError as error:
        raise ConfigError(
            f"Petastorm is not installed ({error}): pip install 'mkdm[train]', or take the plain pyarrow feed"
        ) from error
    system, root = fsspec.core.url_to_fs(training_set.folder)
    urls = [system.unstrip_protocol(f"{root}/{file.path}") for file in files]
    if set(root) & _NOT_IN_URLS:  # Petastorm parses URLs and decodes nothing in them
        raise ConfigError(
            f"Petastorm cannot read below {root}: move the set to a path without any of {' '.join(_NOT_IN_URLS)}, or "
            f"take the plain pyarrow feed"
        )
    try:
        return make_batch_reader(
            urls,
            workers_count=1,
            shuffle_row_groups=False,
            num_epochs=1,
            hdfs_driver="libhdfs",
            convert_early_to_numpy=True,  # in the background thread
        )
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(training_set, files[0], repr(error)) from error


def _next(reader: Any, training_set: TrainingSet, file: TrainingFile) -> dict[str, Any]:
    """The columns of the reader's next file.

    Petastorm 0.13.1 ends an epoch too early now and then, and would lose the rest of it: `ThreadPool.get_results` asks
    whether all that was handed out is done, then whether all was handed out, and the last file may be handed out in
    between. By then all is, so asking once more gets the right answer.
    """
    try:
        found = next(reader, None)
        found = next(reader, None) if found is None else found
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(training_set, file, repr(error)) from error
    rows = 0 if found is None else len(getattr(found, PAIR_HASH))
    if found is None or rows != file.rows:
        raise _unreadable(training_set, file, f"it has {rows:,} rows, not {file.rows:,}")
    columns: dict[str, Any] = found._asdict()
    return columns


def _unreadable(training_set: TrainingSet, file: TrainingFile, why: str) -> InputError:
    return InputError(f"{training_set.folder}/{file.path} cannot be read any more ({why}): check the training set")
