"""A job that runs models over all pairs of a table, chunk by chunk: the flags and the course that such jobs share."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Self

from pyspark.sql import DataFrame, SparkSession

from cluster.session import task_slots
from jobs.engine.chunked_run import ChunkedRun
from jobs.engine.chunks import auto_chunks, known_rate
from jobs.engine.commit import Output, rejected_rows
from jobs.engine.grouping import Tasks
from jobs.engine.ledger import Identity, Ledger, RunState
from jobs.engine.pairs import read_pairs
from jobs.engine.pairs_flags import PairsFlags
from jobs.engine.pinned_pairs import PinnedPairs
from jobs.engine.run_report import RunReport
from jobs.engine.scoring import ROWS_PER_TASK
from jobs.engine.small_runs import INTERPRETED_ROWS
from jobs.engine.table import Table
from jobs.engine.warehouse import Warehouse
from mkdm.config import require_at_least, require_shares


@dataclass(frozen=True, kw_only=True)
class PairsJobConfig(PairsFlags):
    """Run models over every pair of a table.

    Raises:
        ConfigError: a number outside its range.
    """

    rejected_pairs: str | None = None
    """Table of pairs without a result and why, if not <warehouse>/rejected_pairs."""
    runs: str | None = None
    """Table of runs, if not <warehouse>/runs."""
    backend: Literal["auto", "torch", "torch-compile", "openvino"] = "auto"
    """What runs a model; auto takes openvino on CPUs where mkdm export-model was run for it, else torch. torch-compile
    takes half a minute or more to start, and is for long runs on GPUs."""
    token_budget: int | None = None
    """Padded tokens of one batch; default: what suits the device."""
    max_reject_rate: float = 0.05
    """Share of rejected pairs, 0 to 1, above which the job fails; what it wrote stays."""
    chunks: Literal["auto"] | int = "auto"
    """Parts by hash of document or passage that are committed one by one; auto makes them about five minutes long."""
    copy_input: Literal["auto", "true", "false"] = "auto"
    """Whether a run of several chunks copies its input first, so that this may change or go meanwhile. auto copies what
    is not in the order of its buckets, as what build-pairs made is; false refuses that."""
    rows_per_task: int = ROWS_PER_TASK
    """Pairs of one Spark task, which is what is done again when an executor dies. Blocks have no more."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_shares(self, "max_reject_rate")
        require_at_least(self, 1, "token_budget", "rows_per_task", "chunks")


@dataclass(frozen=True)
class PairsJob:
    """One call of such a job: its flags, the pairs at their version, and the ledger of what was done before."""

    spark: SparkSession
    config: PairsJobConfig
    warehouse: Warehouse
    pairs: PinnedPairs
    ledger: Ledger
    compile_queries: Callable[[], None] = lambda: None

    @classmethod
    def read(
        cls, spark: SparkSession, config: PairsJobConfig, root: str, compile_queries: Callable[[], None] = lambda: None
    ) -> Self:
        """Find the pairs and the ledger in the warehouse at that root, or where the flags moved them.

        Args:
            compile_queries: what ends `interpreted`; called before a query over many rows.

        Raises:
            InputError: the pairs are missing, or lack a column or its type.
        """
        warehouse = Warehouse(spark, root)
        table = warehouse.table("pairs", config.pairs)
        pairs = read_pairs(spark, table, config.pairs_version, options=config.file_options())
        return cls(spark, config, warehouse, pairs, Ledger(warehouse.table("runs", config.runs)), compile_queries)

    def start(self, identity: Identity, rows: int, run_id: str | None = None, per_pair: int = 1) -> RunState:
        """Record that a run over so many pairs was started, cut into chunks as the flag says."""
        chunks = self.config.chunks
        if chunks == "auto":
            chunks = auto_chunks(rows * per_pair, task_slots(self.spark), known_rate(self.ledger, identity))
        return self.ledger.start(identity, self.ledger.free_name(identity, run_id), rows, int(chunks))

    def complete(
        self,
        state: RunState,
        outputs: dict[str, Table],
        results: Output,
        transform: Callable[[DataFrame, int | None], DataFrame],
        *,
        pairs: DataFrame | None = None,
        gone: DataFrame | None = None,
        finish: Callable[[DataFrame], None] | None = None,
        per_pair: int = 1,
        doing: str = "scoring",
    ) -> RunReport:
        """Take a run through the chunks that it lacks; see `ChunkedRun`.

        Args:
            outputs: the tables that the report names, `rejected_pairs` among them.
            results: what takes the rows that are no rejects.
            transform: makes the rows of blocks, dealt to so many Spark tasks; None if they are.
            pairs: the input, if not all pairs.

        Raises:
            RunFailedError: a task failed for good, or rows went missing; what is committed stays.
        """
        if state.run.rows * per_pair > INTERPRETED_ROWS:
            self.compile_queries()
        chunked = ChunkedRun(
            spark=self.spark,
            state=state,
            ledger=self.ledger,
            warehouse=self.warehouse,
            pairs=self.pairs.without_texts if pairs is None else pairs,
            passages=self.pairs.texts() if pairs is None else None,
            by_document=self.pairs.built,
            in_place=self.pairs.in_place if pairs is None else lambda: None,
            copy_input=self.config.copy_input,
            transform=transform,
            tasks=Tasks(self.config.rows_per_task, task_slots(self.spark)),
            scores=results,
            rejects=Output(outputs["rejected_pairs"], rejected_rows),
            gone=gone,
            finish=finish,
            require_unchanged=self.pairs.require_unchanged,
            per_pair=per_pair,
            doing=doing,
        )
        return RunReport.of(state.run, chunked.complete(), outputs)
