"""How a run is cut into chunks by hash of query_id, and its input laid out so that a chunk reads its own files.

A run of several chunks first copies its input, once, into a staging table that is partitioned by chunk. Whatever the
number of chunks, the input is then read once and the copy once; and once copied, the run no longer depends on what
becomes of the input: it may be overwritten, optimised and vacuumed. A run of one chunk reads its input directly.
"""

import math

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from jobs.engine.ledger import COMPLETE, Identity, Ledger, Run
from jobs.engine.table import Table
from mkdm.columns import CHUNK, PAIR, PASSAGE_ID, QUERY_ID, ROW_FAULT

GONE = -1
"""The chunk of rows that are there for their keys alone: pairs that an incremental run takes out of the scores."""
CHUNK_SECONDS = 300.0
"""Work of one chunk that `--chunks auto` aims at: long beside its commits, short beside the life of a machine."""
RATE_PER_SLOT = 100.0
"""Pairs/s of one task slot, as long as the ledger holds no rate of this model."""
INPUT_ROWS_PER_FILE = 500_000
"""Rows of one file of the laid-out input, about 250 MB."""


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


def chunk_of(chunks: int) -> Column:
    """The chunk of a row, from 0: all rows of a query are in the same one."""
    return F.pmod(F.xxhash64(QUERY_ID), F.lit(chunks)).cast("int")


def lay_out(pairs: DataFrame, run: Run, table: Table, gone: DataFrame | None = None) -> None:
    """Copy the pairs into a table partitioned by chunk, in one commit; a repeat does nothing.

    Args:
        pairs: query_id, passage_id, query, passage; and row_fault, if any row of files is at fault.
        gone: query_id, passage_id of pairs that left; they get the chunk GONE.
    """
    files = max(1, math.ceil(run.rows / run.chunks / INPUT_ROWS_PER_FILE))
    fault = [ROW_FAULT] if ROW_FAULT in pairs.columns else []
    rows = pairs.select(chunk_of(run.chunks).alias(CHUNK), *PAIR, *fault)
    if files == 1:
        rows = rows.repartition(run.chunks, CHUNK)
    else:
        rows = rows.repartition(run.chunks * files, F.col(CHUNK), F.pmod(F.xxhash64(PASSAGE_ID), F.lit(files)))
    if gone is not None:
        rows = rows.unionByName(gone.withColumn(CHUNK, F.lit(GONE)), allowMissingColumns=True)
    table.append(rows, run.transaction("layout"), partition_by=CHUNK)


def chunk_sizes(laid_out: DataFrame) -> dict[int, int]:
    """Rows of each chunk that has any."""
    counted = laid_out.where(F.col(CHUNK) != GONE).groupBy(CHUNK).count().collect()
    return {row[CHUNK]: row["count"] for row in sorted(counted, key=lambda row: row[CHUNK])}
