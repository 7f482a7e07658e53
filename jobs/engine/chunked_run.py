"""Takes a run through its chunks: score, stage, commit, record; skip what is done; get on with a second driver."""

import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from zlib import crc32

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs.engine.blocks import PAIRS, blocks_of
from jobs.engine.chunks import InPlace, copied_chunks, lay_out
from jobs.engine.commit import Output, commit_chunk
from jobs.engine.faults import FOREIGN, FOREIGN_OR_INPUT, told
from jobs.engine.grouping import Tasks, planned
from jobs.engine.ledger import COMPLETE, FAILED, Ledger, Run, RunState, Totals, sum_of
from jobs.engine.limits import with_settings
from jobs.engine.progress import Progress, progress
from jobs.engine.spark_metrics import described, tell_spark
from jobs.engine.table import Table
from jobs.engine.warehouse import Warehouse
from mkdm.columns import CHUNK, LOAD_ID
from mkdm.credentials import hide_credentials
from mkdm.errors import ConfigError, InputError, RunFailedError

_PARTITIONS = "spark.sql.files.minPartitionNum"
"""Of files much alike, as many tasks make a file each."""
_ENDS: tuple[type[Exception], ...] = (*FOREIGN_OR_INPUT, RunFailedError)
"""What ends a run that others may have done meanwhile."""


@dataclass(frozen=True)
class ChunkedRun:
    """A run that was started, and all that it takes to finish it.

    Attributes:
        pairs: its input, lazily; query_id, passage_id, query, passage.
        passages: passage_id, passage: the texts, if the pairs have none.
        by_document: whether the ids of passages begin with their document.
        in_place: gives the same pairs as a build laid them out; None where none did.
        copy_input: auto, true or false: whether a run of several chunks copies its input.
        gone: keys that left since the run that this one adds to; None for a run over everything.
        transform: makes the rows of blocks, which it deals to so many tasks; None if they are.
        tasks: that score.
        require_unchanged: raises InputError if the input is no more what was pinned; asked once all of it was read, and
            before anything of it is committed.
        per_pair: rows that it makes of each.
        doing: what it does, for the progress bar.
        finish: what is left to do after the last chunk, given the copy of the input; it may be done twice.
    """

    spark: SparkSession
    state: RunState
    ledger: Ledger
    warehouse: Warehouse
    pairs: DataFrame
    transform: Callable[[DataFrame, int | None], DataFrame]
    tasks: Tasks
    scores: Output
    rejects: Output
    passages: DataFrame | None = None
    by_document: bool = False
    in_place: Callable[[], InPlace | None] = lambda: None
    copy_input: str = "auto"
    gone: DataFrame | None = None
    finish: Callable[[DataFrame], None] | None = None
    require_unchanged: Callable[[], None] | None = None
    per_pair: int = 1
    doing: str = "scoring"

    @property
    def run(self) -> Run:
        """The run itself."""
        return self.state.run

    def complete(self) -> Totals:
        """Do what is missing of the run; of one that is complete, say so.

        Raises:
            RunFailedError: a task failed for good, or rows went missing; what is committed stays.
        """
        if self.state.state == COMPLETE:
            say(f"run {self.run.run_id} is complete since {self.state.last_seen:%Y-%m-%d %H:%M:%S}: nothing to do")
            drop_staging(self.warehouse, self.run)  # of a driver that was killed before it came to that
            return self.state.totals
        began = time.monotonic()
        if self.state.chunks:
            done = self.state.totals
            say(
                f"{self.run.run_id} goes on: {len(self.state.chunks):,} of {self.run.chunks:,} chunks, "
                f"{done.rows_read:,} of {self.run.rows:,} pairs are done"
            )
        try:
            laid_out = self._laid_out()
            chunks = self._score_chunks(laid_out)
            if self.finish is not None and laid_out.copy is not None:
                self.finish(laid_out.copy)
            totals = self._totals(chunks, time.monotonic() - began)
            self.ledger.record(self.run, COMPLETE, totals)
        except _ENDS as error:
            if (done_elsewhere := record_failure(self.ledger, self.run)) is not None:
                return done_elsewhere
            raise RunFailedError(f"run {self.run.run_id} failed: {told(error)}") from error
        drop_staging(self.warehouse, self.run)
        return totals

    def _laid_out(self) -> "_LaidOut":
        """The input as blocks, and the rows of each chunk."""
        table = staging(self.warehouse, self.run, "pairs")
        several = self.run.chunks > 1
        if self.gone is None and not (several and table.exists()):
            if not several:
                return _LaidOut({0: self.run.rows}, lambda _: self._all_blocks())
            if (there := self._there_in_place()) is not None:
                return there
        tasks = self.tasks if self.gone is None else None
        lay_out(self.pairs, self.run, table, self.gone, self.passages, self.by_document, tasks)
        self._check_input()
        copy = table.read()
        if PAIRS not in copy.columns:
            raise RunFailedError(
                f"it was begun by an earlier engine, which laid its input out in another way: finish it with that one, "
                f"or give it up with mkdm runs --remove {self.run.run_id}"
            )
        chunks = copied_chunks(copy)
        sizes = self._all_there({chunk: one.rows for chunk, one in chunks.items()})
        parts = {chunk: one.parts for chunk, one in chunks.items()}
        return _LaidOut(sizes, lambda chunk: copy.where(F.col(CHUNK) == chunk), copy, parts)

    def _all_blocks(self) -> DataFrame:
        there = self.in_place()  # with buckets, which need not be worked out then
        pairs, passages = (self.pairs, self.passages) if there is None else (there.pairs, there.passages)
        grouping = planned(pairs, self.run.rows, self.tasks, self.by_document)
        return blocks_of(pairs, grouping, passages, self.by_document)

    def _there_in_place(self) -> "_LaidOut | None":
        """The input where a build laid it out, if it is to be read there; None for a copy.

        Raises:
            ConfigError: it is not laid out, and --copy-input false was asked for.
        """
        if self.copy_input == "true":
            return None
        there = self.in_place()
        sizes = None if there is None else there.sizes(self.run.chunks)
        if there is not None and sizes is not None:
            if self.copy_input == "false" or there.in_order(self.run.chunks):
                return _LaidOut(self._all_there(sizes), lambda chunk: there.blocks(chunk, self.run, self.tasks))
            say("the files of pairs or passages are no more in order, and so are copied: mkdm maintain orders them")
        elif self.copy_input == "false":
            raise ConfigError(
                "--copy-input false is for pairs that mkdm build-pairs of this version laid out by bucket: build them "
                "anew, or leave the flag out"
            )
        return None

    def _all_there(self, sizes: dict[int, int]) -> dict[int, int]:
        if sum(sizes.values()) != self.run.rows:
            raise RunFailedError(f"{self.run.rows:,} rows went in, {sum(sizes.values()):,} are in the chunks")
        return sizes

    def _check_input(self) -> None:
        """What was read of a changed input is of no use to anybody."""
        if self.require_unchanged is None:
            return
        try:
            self.require_unchanged()
        except InputError:
            drop_staging(self.warehouse, self.run)
            raise

    def _score_chunks(self, laid_out: "_LaidOut") -> dict[int, Totals]:
        """Score what is missing; the totals of all chunks that this driver knows of."""
        chunks, sizes = dict(self.state.chunks), laid_out.sizes
        todo = [chunk for chunk in sizes if chunk not in self.state.chunks]
        start = random.randrange(len(todo)) if todo else 0  # a second driver begins elsewhere
        done = sum(size for chunk, size in sizes.items() if chunk in self.state.chunks)
        with progress(self.spark, self.doing, self.run.rows, done, self.per_pair) as bar:
            for chunk in todo[start:] + todo[:start]:
                with described(self.spark, f"mkdm {self.run.job} {self.run.run_id}: chunk {chunk}"):
                    totals = self._score_chunk(laid_out, chunk, bar)
                if totals:
                    chunks[chunk] = totals
                    tell_spark(self.spark, totals)
                bar.settle(sizes[chunk])
        return chunks

    def _score_chunk(self, laid_out: "_LaidOut", chunk: int, bar: Progress) -> Totals | None:
        """Score and commit one chunk; None if another driver did it."""
        began, rows = time.monotonic(), laid_out.sizes[chunk]
        if self.run.chunks > 1 and self.ledger.chunk_done(self.run, chunk):
            return None
        staged = staging(self.warehouse, self.run, "results")
        try:
            with laid_out.in_tasks(self.spark, chunk, self.tasks) as deal_to:
                scored = self.transform(laid_out.blocks(chunk), deal_to).withColumn(CHUNK, F.lit(chunk))
                if self.state.chunks and staged.exists():  # perhaps by an engine that staged fewer columns
                    scored = scored.select(staged.read().columns)
                bar.begin(rows)  # only now, as what was asked of the input is no part of it
                staged.append(scored, self.run.transaction(f"staged/{chunk}"), partition_by=CHUNK)
            if laid_out.copy is None:  # or else that copy was checked
                self._check_input()
            mine = staged.read().where(F.col(CHUNK) == chunk)
            return commit_chunk(
                mine, self.scores, self.rejects, self.ledger, self.run, chunk, rows, began, self.per_pair
            )
        except FOREIGN_OR_INPUT:  # the last when staging is gone
            if not self.ledger.chunk_done(self.run, chunk):
                raise
            return None

    def _totals(self, chunks: dict[int, Totals], seconds: float) -> Totals:
        """Of all chunks, by whomever: rows from the ledger, model loads from the staged results."""
        if sum(totals.rows_read for totals in chunks.values()) != self.run.rows:  # another driver did the others
            state = RunState.of(self.ledger.rows(run_id=self.run.run_id))
            chunks = state.chunks if state else {}
        earlier = sum(totals.seconds for totals in self.state.chunks.values())
        totals = replace(sum_of(list(chunks.values())), seconds=earlier + seconds)
        if totals.rows_read != self.run.rows:
            raise RunFailedError(f"{self.run.rows:,} rows went in and {totals.rows_read:,} came out")
        if self.run.chunks > 1 and self.run.rows:
            loads = staging(self.warehouse, self.run, "results").read().agg(F.count_distinct(LOAD_ID)).collect()[0][0]
            totals = replace(totals, model_loads=loads)
        return totals


@dataclass(frozen=True)
class _LaidOut:
    """The input of a run.

    Attributes:
        sizes: rows of each chunk that has any.
        blocks: those of a chunk.
        copy: the blocks of all chunks, if the run has copied its input.
        parts: in how many files of it each chunk is.
    """

    sizes: dict[int, int]
    blocks: Callable[[int], DataFrame]
    copy: DataFrame | None = None
    parts: dict[int, int] = field(default_factory=dict)

    @contextmanager
    def in_tasks(self, spark: SparkSession, chunk: int, tasks: Tasks) -> Iterator[int | None]:
        """To how many tasks the blocks of a chunk are to be dealt inside the block; None where they lie in theirs."""
        number, parts = tasks.number(self.sizes[chunk]), self.parts.get(chunk, 1)
        if self.copy is None or number == 1:
            yield None
        elif parts < number:
            yield number
        else:
            with with_settings(spark, {_PARTITIONS: str(parts)}) as taken:
                yield None if taken else number


def record_failure(ledger: Ledger, run: Run) -> Totals | None:
    """Record that a run failed; or the totals, if another driver completed it, which then dropped the staging."""
    other = RunState.of(ledger.rows(run_id=run.run_id))
    if other is not None and other.state == COMPLETE:
        return other.totals
    with suppress(*FOREIGN):  # a full disk takes no row either
        ledger.record(run, FAILED)
    return None


def staging(warehouse: Warehouse, run: Run, what: str) -> Table:
    """A table that a run needs for itself: its laid-out `pairs`, its `results` until they are committed, `passages`."""
    clean = "".join(c if c.isalnum() else "_" for c in run.run_id)
    return warehouse.table(f"staging_{clean}_{crc32(run.run_id.encode()):08x}_{what}")  # a-b and a.b are two runs


def is_laid_out(warehouse: Warehouse, run: Run) -> bool:
    """Whether the run has copied its input, and so needs no more of it."""
    return staging(warehouse, run, "pairs").exists()


def drop_staging(warehouse: Warehouse, run: Run) -> None:
    """Remove the tables that only this run needed."""
    for what in ("pairs", "results", "passages"):
        staging(warehouse, run, what).drop()


def say(line: str) -> None:
    """Tell the user something beside the result."""
    print(hide_credentials(line), file=sys.stderr, flush=True)
