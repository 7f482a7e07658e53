"""Buckets of documents: what a build lays `pairs` and `passages` out by, and what chunks of a run are made of.

A bucket is a share of the hashes of documents, of passages where no document is known. There are so many that a chunk
of any run is a range of them, and they never change: a table that grows has more rows in each. A build writes its rows
in the order of their buckets, so that files, and pages in files, tell by their statistics which chunks they are of.
"""

import math

import numpy as np
from numpy.typing import NDArray
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from mkdm.columns import BUCKET, PASSAGE_ID

BUCKETS = 1 << 16
_LOW_BITS = 48
DOCUMENT = (
    f"CASE WHEN contains({PASSAGE_ID}, ':') THEN substring({PASSAGE_ID}, 1, length({PASSAGE_ID}) - "
    f"length(substring_index({PASSAGE_ID}, ':', -1))) ELSE {PASSAGE_ID} END"
)
"""The document of a passage that `build-pairs` cut, by which its id begins, as SQL."""
OF_DOCUMENT = f"CAST(pmod(shiftright(xxhash64({DOCUMENT}), {_LOW_BITS}), {BUCKETS}) AS INT)"
"""The bucket of such a passage, as SQL."""


def owner_of(by_document: bool) -> Column:
    """What decides where a pair belongs: the document of its passage, or the passage."""
    return F.expr(DOCUMENT) if by_document else F.col(PASSAGE_ID)


def bucket_of(owner: Column) -> Column:
    """int, from 0 to BUCKETS − 1: by the upper bits of a hash, whose lower ones deal rows within a bucket."""
    return F.pmod(F.shiftright(F.xxhash64(owner), _LOW_BITS), F.lit(BUCKETS)).cast("int")


def chunk_of(bucket: Column, chunks: int) -> Column:
    """int: which of so many chunks a bucket is of."""
    return F.floor(bucket.cast("bigint") * chunks / BUCKETS).cast("int")


def in_chunk(chunk: int, chunks: int) -> Column:
    """Whether a row that has its bucket is of that chunk; told by statistics of files too."""
    first, after = (math.ceil(number * BUCKETS / chunks) for number in (chunk, chunk + 1))
    return F.col(BUCKET).between(first, after - 1)


def with_bucket(rows: DataFrame) -> DataFrame:
    """Rows of passages that a build cut, with their bucket."""
    return rows.withColumn(BUCKET, F.expr(OF_DOCUMENT))


def bucket_of_document(document: str) -> Column:
    """The bucket of the passages that a build cuts from a document.

    Args:
        document: the column of its id.
    """
    return bucket_of(F.concat(document, F.lit(":")))


def in_bucket_order(rows: DataFrame, tasks: int) -> DataFrame:
    """The rows in so many tasks, which follow each other by bucket, as do the rows in each.

    Args:
        rows: with bucket and passage_id.
    """
    columns = rows.columns
    dealt = dealt_in_order(rows, chunk_of(F.col(BUCKET), tasks), tasks).select(columns)
    return dealt.sortWithinPartitions(BUCKET, PASSAGE_ID)


def dealt_in_order(rows: DataFrame, task: Column, tasks: int) -> DataFrame:
    """The rows in so many tasks, each in the one of its number.

    Spark deals by the hash of a column, so that each task gets one whose hash leads there.

    Args:
        task: int, from 0 to tasks − 1.

    Returns:
        The rows, and `_task`, by which Spark knows where they are.
    """
    key = looked_up(keys_of_tasks(tasks), task)
    return rows.withColumn("_task", key).repartition(tasks, "_task")


def keys_of_tasks(tasks: int) -> NDArray[np.int64]:
    """By task, an int whose hash has Spark deal it there: of 32 bits by Murmur3, with seed 42, modulo the tasks.

    Were the hash another, tasks would be less even, and nothing else.

    Source: A. Appleby, MurmurHash3_x86_32 (https://github.com/aappleby/smhasher), for a key of four bytes.
    """
    found = np.full(tasks, -1, dtype=np.int64)
    tried = 32 * tasks
    while (found < 0).any():
        keys = np.arange(tried, dtype=np.uint32)
        mixed = _turned(keys * np.uint32(0xCC9E2D51), 15) * np.uint32(0x1B873593)
        mixed = _turned(mixed ^ np.uint32(42), 13) * np.uint32(5) + np.uint32(0xE6546B64)
        mixed ^= np.uint32(4)
        for bits, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
            mixed = (mixed ^ (mixed >> np.uint32(bits))) * np.uint32(factor)
        there, first = np.unique(np.mod(mixed.view(np.int32), tasks), return_index=True)
        found[there] = first
        tried *= 2
    return found


def _turned(bits: NDArray[np.uint32], left: int) -> NDArray[np.uint32]:
    return (bits << np.uint32(left)) | (bits >> np.uint32(32 - left))


def looked_up(values: NDArray[np.int64], place: Column) -> Column:
    """int: the value of that place, from 0; none is negative.

    One literal of bytes, as digits, however many there are: Spark plans it in no time, and a task reads it as one
    thing. An array would be as many objects, which each task of the plan reads anew.
    """
    width = len(str(values.max()))
    digits = F.lit("".join(f"{value:0{width}d}" for value in values.tolist()).encode())
    return F.substring(digits, place.cast("int") * width + 1, F.lit(width)).cast("string").cast("int")
