"""How a run is cut into chunks, and how a chunk finds its part of the input.

What `build-pairs` made is laid out by bucket, of which a chunk is a range: it is read where it is, at its pinned
version. Other input of several chunks is first copied, once, as blocks into a staging table that is partitioned by
chunk; the run then no longer depends on what becomes of the input. A run of one chunk reads its input directly. Which
rows make a chunk is the same in any case, and so are its blocks, but for copies of more than MOST_FILES tasks and of
incremental runs.
"""

import math
from dataclasses import dataclass

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.engine.blocks import GONE, blocks_of, keys_alone, rows_in_block
from jobs.engine.buckets import chunk_of, in_chunk
from jobs.engine.grouping import PART, Grouping, Hashed, Tasks, planned
from jobs.engine.ledger import COMPLETE, Identity, Ledger, Run
from jobs.engine.table import Table
from mkdm.columns import BUCKET, CHUNK
from udfs.scoring import BLOCK_PAIRS

CHUNK_SECONDS = 300.0
"""Work of one chunk that `--chunks auto` aims at: long beside its commits, short beside the life of a machine."""
RATE_PER_SLOT = 100.0
"""Pairs/s of one task slot, as long as the ledger holds no rate of this model."""
CHUNKS_TRIED = 8
"""Chunks that are looked at to tell how many files each reads."""
FEW_FILES, MOST_READS = 32, 4
"""Files of a chunk that are no matter, and how often the table may be read in all, before a copy is cheaper."""
INPUT_ROWS_PER_FILE = 500_000
"""Pairs of one file of the laid-out input, some 10 to 250 MB, as its texts recur."""
MOST_FILES = 4096
"""Files of a copied input, of the size of a task: 33 million pairs. Of more pairs each file has several tasks."""
COPIED_GROUP = 4 * BLOCK_PAIRS
"""Pairs of a group of a copied input about: as much of it as the last of its blocks may lack."""


def auto_chunks(rows: int, slots: int, known_rate: float | None) -> int:
    """Chunks of about five minutes each.

    Args:
        rows: rows of the input.
        slots: tasks that run at once.
        known_rate: pairs/s of the whole cluster in earlier runs of the model, if there is one.
    """
    rate = known_rate or RATE_PER_SLOT * slots
    return max(1, math.ceil(rows / (rate * CHUNK_SECONDS)))


def known_rate(ledger: Ledger, identity: Identity) -> float | None:
    """Pairs/s of the last complete run of the same model that took a minute or more."""
    rows = ledger.rows(job=identity.job, model_version=identity.model_version, state=COMPLETE)
    rates = [row["rows_read"] / row["seconds"] for row in rows if row["chunk"] is None and row["seconds"] >= 60]
    return rates[-1] if rates else None


def lay_out(
    pairs: DataFrame,
    run: Run,
    table: Table,
    gone: DataFrame | None = None,
    passages: DataFrame | None = None,
    by_document: bool = False,
    tasks: Tasks | None = None,
) -> None:
    """Copy the pairs as blocks into a table partitioned by chunk, in one commit; a repeat does nothing.

    Each task that scores gets a file of its own, as far as these are MOST_FILES at most.

    Args:
        pairs: query_id, passage_id, query, passage; and row_fault, if any row of files is at fault.
        gone: query_id, passage_id of pairs that left; they get the chunk GONE.
        passages: passage_id, passage: the texts, if the pairs have none.
        by_document: whether the ids of passages begin with their document.
        tasks: that score; None where the pairs cost too much to be looked at twice.
    """
    rows = run.rows / run.chunks
    grouping: Grouping = _hashed(run)
    few = tasks is not None and tasks.number(rows) * run.chunks <= MOST_FILES
    if tasks is not None and few and not table.exists():  # the input of a copy that is there may be gone
        grouping = planned(pairs, rows, tasks, by_document, run.chunks)
    blocks = blocks_of(pairs, grouping, passages, by_document)
    if gone is not None:
        blocks = blocks.unionByName(keys_alone(gone))
    table.append(blocks, run.transaction("layout"), partition_by=CHUNK)


def _hashed(run: Run) -> Hashed:
    files = max(1, math.ceil(run.rows / run.chunks / INPUT_ROWS_PER_FILE))
    groups = max(1, math.ceil(run.rows / run.chunks / COPIED_GROUP))
    return Hashed(groups, run.chunks, files)


@dataclass(frozen=True)
class Copied:
    """A chunk of a copied input.

    Attributes:
        rows: how many.
        parts: in how many files they are, a task each, if it was copied so; else 1 or few.
    """

    rows: int
    parts: int


def copied_chunks(laid_out: DataFrame) -> dict[int, Copied]:
    """Each chunk that has any rows."""
    rows = laid_out.where(F.col(CHUNK) != GONE).groupBy(CHUNK)
    counted = rows.agg(F.sum(rows_in_block()).alias("rows"), F.count_distinct(PART).alias("parts")).collect()
    return {row[CHUNK]: Copied(row["rows"], row["parts"]) for row in sorted(counted, key=lambda row: row[CHUNK])}


@dataclass(frozen=True)
class InPlace:
    """Pairs that a build laid out by bucket, and their texts: read a chunk at a time, at their pinned versions.

    Attributes:
        pairs: query_id, passage_id, query, bucket; passage.
        passages: passage_id, passage, bucket: the texts, if the pairs have none.
    """

    pairs: DataFrame
    passages: DataFrame | None

    def sizes(self, chunks: int) -> dict[int, int] | None:
        """Rows of each chunk that has any; None if a row has no bucket, as one of an earlier engine.

        One look at a column that has its values in order.
        """
        chunk = chunk_of(F.col(BUCKET), chunks).alias(CHUNK)
        rows = self.pairs.groupBy(chunk).agg(F.count("*").alias("rows")).collect()
        if any(row[CHUNK] is None for row in rows) or not self._have_buckets():
            return None
        return {row[CHUNK]: row["rows"] for row in sorted(rows, key=lambda row: row[CHUNK])}

    def _have_buckets(self) -> bool:
        return self.passages is None or self.passages.where(F.col(BUCKET).isNull()).isEmpty()

    def in_order(self, chunks: int) -> bool:
        """Whether a chunk reads few files, so that all chunks together read the table little more than once."""
        for rows in (self.pairs, self.passages):
            if rows is None:
                continue
            tried = range(0, chunks, max(1, chunks // CHUNKS_TRIED))
            share = sum(len(rows.where(in_chunk(chunk, chunks)).inputFiles()) for chunk in tried) / len(tried)
            if share > max(FEW_FILES, MOST_READS * len(rows.inputFiles()) / chunks):
                return False
        return True

    def blocks(self, chunk: int, run: Run, tasks: Tasks) -> DataFrame:
        """The blocks of a chunk, in the tasks that score them."""
        mine = in_chunk(chunk, run.chunks)
        passages = None if self.passages is None else self.passages.where(mine)
        pairs = self.pairs.where(mine)
        grouping = planned(pairs, run.rows / run.chunks, tasks, by_document=True, chunks=run.chunks, only=chunk)
        return blocks_of(pairs, grouping, passages, by_document=True)
