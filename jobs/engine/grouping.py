"""Which pairs make a block, and which blocks a task: planned from a count, so that blocks need no shuffle of their own.

Pairs are counted by cell: a range of buckets of documents, of passages where no document is known, some eight to a
block. Cells are put together into groups of a block's size, and groups into tasks, by their counts: so tasks are even,
and Spark makes the blocks of a task in the very task that scores them. A cell with more pairs than two blocks, as of a
hot document, is cut into pieces: by passage, by query where a passage is hot, or by both where both are.
"""

import math
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from jobs.engine.buckets import BUCKETS, bucket_of, chunk_of, keys_of_tasks, looked_up, owner_of
from jobs.engine.packing import evenly, together
from mkdm.columns import BUCKET, CHUNK, PASSAGE_ID, QUERY_ID
from udfs.scoring import BLOCK_PAIRS

PART, GROUP = "part", "group"
CELLS_PER_BLOCK = 8
"""Few texts are then in two blocks, and what is left over of a block is small."""
MOST_CELLS = 1 << 18
"""Counts that the driver takes; groups of more pairs than 134 million are of several blocks."""
_BY_PASSAGE, _BY_QUERY, _BY_BOTH = range(3)
_CELL, _UNITS = "_cell", "_units"


@dataclass(frozen=True)
class Tasks:
    """The tasks that score blocks.

    Attributes:
        rows: pairs of one about, at least 1.
        slots: how many run at once: as many are made, if there are blocks for them.
    """

    rows: int
    slots: int = 1

    def number(self, rows: float) -> int:
        """How many tasks so many pairs make."""
        return max(1, math.ceil(rows / self.rows))


@dataclass(frozen=True)
class Hashed:
    """Groups by hash, with no look at the pairs before: even as far as documents are, in number and size.

    Attributes:
        groups: of each chunk, at least 1.
        parts: tasks of a chunk; None for one a group.
        only: the chunk that all pairs are of, if they are of one.
    """

    groups: int
    chunks: int = 1
    parts: int | None = None
    only: int | None = None

    @property
    def tasks(self) -> int:
        """In how many tasks the groups are."""
        return self._parts * (self.chunks if self.only is None else 1)

    @property
    def dealt_by(self) -> tuple[str, ...]:
        """The columns that tell the task of a row."""
        return CHUNK, PART

    @property
    def _parts(self) -> int:
        return min(self.parts or self.groups, self.groups)

    def placed(self, rows: DataFrame, by_document: bool, texts: bool = False) -> DataFrame:
        """The rows with their chunk, group and part, by which they are to be dealt."""
        rows = _with_chunk(rows, by_document, self.chunks)
        hashed = F.xxhash64(owner_of(by_document))
        rows = rows.withColumn(GROUP, F.pmod(hashed, F.lit(self.groups)).cast("int"))
        return rows.withColumn(PART, F.pmod(GROUP, F.lit(self._parts)).cast("int")).drop(BUCKET)


@dataclass(frozen=True)
class Hot:
    """Cells that are cut into pieces. By cell:

    Attributes:
        first: the number of its first piece among all cells and pieces.
        pieces: how many it has; 1 of a cell that is whole.
        by: what decides the piece of a pair.
    """

    first: NDArray[np.int64]
    pieces: NDArray[np.int64]
    by: NDArray[np.int64]


@dataclass(frozen=True)
class Planned:
    """Groups that were put together by their counts, of one chunk or of each.

    Attributes:
        cells: of a chunk.
        groups: by cell, chunk after chunk, and by piece of those that are cut, its group.
        parts: by group, what Spark deals it by; see `keys_of_tasks`.
        loads: pairs of each task, of a chunk the largest first, which Spark starts first.
        hot: the cells that are cut, if any.
        chunks: of the run.
        only: the chunk that all pairs are of, if they are of one.
    """

    cells: int
    groups: NDArray[np.int64]
    parts: NDArray[np.int64]
    loads: tuple[int, ...]
    hot: Hot | None = None
    chunks: int = 1
    only: int | None = None

    @property
    def tasks(self) -> int:
        """In how many tasks the groups are."""
        return len(self.loads)

    @property
    def dealt_by(self) -> tuple[str, ...]:
        """The column that tells the task of a row."""
        return (PART,)

    def placed(self, rows: DataFrame, by_document: bool, texts: bool = False) -> DataFrame:
        """The rows with their chunk, group and part, by which they are to be dealt.

        Args:
            texts: whether the rows are passages and not pairs: one goes to every piece that may have pairs of it.
        """
        rows = _with_chunk(rows, by_document, self.chunks)
        bucket = _bucket(rows, by_document)
        rows = rows.withColumn(_CELL, cell_of(bucket, by_document, self.cells, self.chunks, self.only))
        unit = F.col(_CELL)
        if self.hot is not None:
            first, pieces, by = (looked_up(values, unit) for values in (self.hot.first, self.hot.pieces, self.hot.by))
            of_passage = first + F.pmod(_piece_hash(PASSAGE_ID), pieces)
            if texts:
                every = F.when(by == _BY_PASSAGE, F.array(of_passage)).otherwise(F.sequence(first, first + pieces - 1))
                rows = rows.withColumn(_UNITS, F.explode(every.cast("array<bigint>")))
            else:
                of_query = first + F.pmod(_piece_hash(QUERY_ID), pieces)
                of_both = first + F.pmod(_piece_hash(PASSAGE_ID, QUERY_ID), pieces)
                chosen = F.when(by == _BY_PASSAGE, of_passage).when(by == _BY_QUERY, of_query).otherwise(of_both)
                rows = rows.withColumn(_UNITS, chosen.cast("bigint"))
            unit = F.col(_UNITS)
        rows = rows.withColumn(GROUP, looked_up(self.groups, unit))
        return rows.withColumn(PART, looked_up(self.parts, F.col(GROUP))).drop(_CELL, _UNITS, BUCKET)


Grouping = Hashed | Planned


def planned(
    pairs: DataFrame,
    rows: float,
    tasks: Tasks,
    by_document: bool,
    chunks: int = 1,
    only: int | None = None,
) -> Grouping:
    """How the pairs of a chunk, or of each, are grouped: one look at their keys, none where one block takes them all.

    The same pairs make the same blocks, however many tasks there are.

    Args:
        pairs: query_id, passage_id.
        rows: of a chunk, about.
        chunks: of the run.
        only: the chunk that all pairs are of, if the run has several.
    """
    size = min(BLOCK_PAIRS, tasks.rows)
    if chunks == 1:
        only = 0
    if rows <= size:
        return Hashed(1, chunks, only=only)
    cells = min(MOST_CELLS, math.ceil(rows * CELLS_PER_BLOCK / size))
    size = max(size, math.ceil(rows * CELLS_PER_BLOCK / cells))
    most = min(2 * size, max(size, tasks.rows))
    there = chunks if only is None else 1
    counted = None
    if BUCKET in pairs.columns:
        cell = cell_of(F.col(BUCKET), by_document, cells, chunks, only)
        counted = _counted(pairs, cell)
    if counted is None or counted[_CELL].null_count:  # rows of an earlier engine have no bucket
        cell = cell_of(_bucket(pairs, by_document), by_document, cells, chunks, only)
        counted = _counted(pairs, cell)
    counts = np.zeros(there * cells, dtype=np.int64)
    counts[counted[_CELL].to_numpy()] = counted["rows"].to_numpy()
    hot = _cut(pairs, counts, most, cell)
    sizes, chunk = counts, np.repeat(np.arange(there), cells)
    if hot is not None:
        cut = hot.pieces > 1
        pieces = [np.full(n, math.ceil(count / n)) for n, count in zip(hot.pieces[cut], counts[cut], strict=True)]
        sizes = np.concatenate([np.where(cut, 0, counts), *pieces])
        chunk = np.concatenate([chunk, np.repeat(chunk[cut], hot.pieces[cut])])
    groups, parts, loads = np.zeros_like(sizes), np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    for one in range(there):
        mine = chunk == one
        group, filled = together(sizes[mine], size)
        groups[mine] = group + len(parts)
        pairs_there = counts[one * cells : (one + 1) * cells].sum()
        task, load = evenly(filled, min(len(filled), max(tasks.number(pairs_there), tasks.slots)))
        parts, loads = np.concatenate([parts, task + len(loads)]), np.concatenate([loads, load])
    return Planned(cells, groups, keys_of_tasks(len(loads))[parts], tuple(loads.tolist()), hot, chunks, only)


def _counted(pairs: DataFrame, cell: Column) -> pa.Table:
    return pairs.groupBy(cell.alias(_CELL)).agg(F.count("*").alias("rows")).toArrow()


def cell_of(bucket: Column, by_document: bool, cells: int, chunks: int, only: int | None) -> Column:
    """int, from 0 to cells − 1, and of several chunks one after the other: a range of buckets, as long as these do."""
    if cells * chunks <= BUCKETS:
        return chunk_of(bucket, cells * chunks) - (only or 0) * cells
    cell = F.pmod(F.xxhash64(owner_of(by_document)), F.lit(cells)).cast("int")
    return cell if only is not None else chunk_of(bucket, chunks) * cells + cell


def _bucket(rows: DataFrame, by_document: bool) -> Column:
    told = bucket_of(owner_of(by_document))
    return F.coalesce(BUCKET, told) if BUCKET in rows.columns else told


def _with_chunk(rows: DataFrame, by_document: bool, chunks: int) -> DataFrame:
    return rows.withColumn(CHUNK, chunk_of(_bucket(rows, by_document), chunks))


def _piece_hash(*names: str) -> Column:
    return F.xxhash64(F.lit("piece"), *names)  # another hash than the cell's


def _cut(pairs: DataFrame, counts: NDArray[np.int64], most: int, cell: Column) -> Hot | None:
    """How the cells of more pairs than `most` are cut; None where there is none.

    A look at these alone: by passage or query, whichever has no member that is large itself, or else by both.
    """
    large = np.flatnonzero(counts > most)
    if not large.size:
        return None
    mine = pairs.withColumn(_CELL, cell).where(F.col(_CELL).isin(large.tolist()))
    largest = None
    for kind, name in ((_BY_PASSAGE, PASSAGE_ID), (_BY_QUERY, QUERY_ID)):
        each = mine.groupBy(_CELL, F.xxhash64(name)).agg(F.count("*").alias("rows"))
        mine_of = each.groupBy(_CELL).agg(F.max("rows").alias("rows"), F.lit(kind).alias("kind"))
        largest = mine_of if largest is None else largest.union(mine_of)
    by = np.zeros(len(counts), dtype=np.int64)
    by[large] = _BY_BOTH
    small = {(row[_CELL], row["kind"]) for row in largest.collect() if row["rows"] <= most // CELLS_PER_BLOCK}  # type: ignore[union-attr]
    for one in large.tolist():
        by[one] = next((kind for kind in (_BY_PASSAGE, _BY_QUERY) if (one, kind) in small), _BY_BOTH)
    pieces = np.ones(len(counts), dtype=np.int64)
    pieces[large] = np.ceil(counts[large] * (1 + 2 / CELLS_PER_BLOCK) / most)  # they come out a little uneven
    first = np.arange(len(counts))
    first[large] = len(counts) + np.concatenate([[0], np.cumsum(pieces[large])[:-1]])
    return Hot(first, pieces, by)
