"""How a run is cut into chunks, and its input laid out so that a chunk reads its own files.

A run of several chunks first copies its input, once, as blocks into a staging table that is partitioned by chunk. Each
text is in a block once, so that the copy is small. Whatever the number of chunks, the input is then read once and the
copy once; and once copied, the run no longer depends on what becomes of the input: it may be overwritten, optimised and
vacuumed. A run of one chunk reads its input directly.
"""

import math

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.engine.blocks import GONE, blocks_of, groups_of, keys_alone, rows_in_block
from jobs.engine.ledger import COMPLETE, Identity, Ledger, Run
from jobs.engine.table import Table
from mkdm.columns import CHUNK

CHUNK_SECONDS = 300.0
"""Work of one chunk that `--chunks auto` aims at: long beside its commits, short beside the life of a machine."""
RATE_PER_SLOT = 100.0
"""Pairs/s of one task slot, as long as the ledger holds no rate of this model."""
INPUT_ROWS_PER_FILE = 500_000
"""Pairs of one file of the laid-out input, some 10 to 250 MB, as its texts recur."""


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
    pairs: DataFrame, run: Run, table: Table, gone: DataFrame | None = None, passages: DataFrame | None = None
) -> None:
    """Copy the pairs as blocks into a table partitioned by chunk, in one commit; a repeat does nothing.

    Args:
        pairs: query_id, passage_id, query, passage; and row_fault, if any row of files is at fault.
        gone: query_id, passage_id of pairs that left; they get the chunk GONE.
        passages: passage_id, passage: the texts, if the pairs have none.
    """
    rows = run.rows / run.chunks
    files = max(1, math.ceil(rows / INPUT_ROWS_PER_FILE))
    blocks = blocks_of(pairs, max(files, groups_of(rows)), run.chunks, files, passages)
    if gone is not None:
        blocks = blocks.unionByName(keys_alone(gone))
    table.append(blocks, run.transaction("layout"), partition_by=CHUNK)


def chunk_sizes(laid_out: DataFrame) -> dict[int, int]:
    """Rows of each chunk that has any."""
    counted = laid_out.where(F.col(CHUNK) != GONE).groupBy(CHUNK).agg(F.sum(rows_in_block()).alias("rows")).collect()
    return {row[CHUNK]: row["rows"] for row in sorted(counted, key=lambda row: row[CHUNK])}
