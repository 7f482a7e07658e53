"""Scores all pairs of a table: `mkdm score`, which equals `spark-submit jobs/score.py`."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from cluster.session import ClusterConfig, start_session, task_slots
from jobs.engine import (
    COMPLETE,
    REPLACING,
    ROW_CODE,
    ROW_MESSAGE,
    ChunkedRun,
    Identity,
    Ledger,
    Output,
    RunReport,
    Table,
    Warehouse,
    auto_chunks,
    base_of,
    chain_of,
    changed_pairs,
    drop_staging,
    fit_texts,
    known_rate,
    read_pairs,
    refuse_duplicates,
    refuse_rejects,
    rejected_rows,
    run_job,
    say,
    scored_rows,
    settings_of,
    since,
    take_out,
    with_row_code,
)
from mkdm.columns import (
    CONTENT_HASH,
    ERROR_CODE,
    ERROR_MESSAGE,
    LOAD_ID,
    PADDED_TOKENS,
    PAIR_KEY,
    SCORE,
    SECONDS,
    TOKENS,
)
from mkdm.config import parse_config
from mkdm.errors import ConfigError
from udfs.model import CheckedModel, check_model
from udfs.scoring import ScoringSettings, score_udf

JOB = "score"
SETTINGS = ("backend", "precision", "max_length")
"""The flags that change a score, besides model and input: part of a run's fingerprint."""
RUN_ID = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")


@dataclass(frozen=True)
class ScoreConfig:
    """Score every pair of a table with a student or a teacher, from Delta to Delta.

    Raises:
        ConfigError: a number outside its range.
    """

    model: str
    """Folder of the model, the same on every machine, or a URI (s3a, abfss, gs, dbfs:/Volumes), fetched once per host:
    a student of ours or a sequence-classification checkpoint. Several joined by commas are an ensemble, whose scores
    are averaged."""
    warehouse: str = "warehouse"
    """Where the tables are: a folder or URI, or CATALOG.SCHEMA."""
    pairs: str | None = None
    """Pairs to score, if not <warehouse>/pairs: a Delta table, or a .parquet, .csv or .jsonl file or folder."""
    pairs_version: int | None = None
    """Delta version of the pairs to score; default: the newest when the run starts."""
    scores: str | None = None
    """Table of scores, if not <warehouse>/scores."""
    rejected_pairs: str | None = None
    """Table of pairs without a score and why, if not <warehouse>/rejected_pairs."""
    runs: str | None = None
    """Table of runs, if not <warehouse>/runs."""
    backend: Literal["auto", "torch", "torch-compile", "openvino"] = "auto"
    """What runs the model; auto takes openvino on CPUs where mkdm export-model was run, else torch. torch-compile takes
    half a minute or more to start, and is for long runs on GPUs."""
    precision: Literal["auto", "fp32", "bf16", "fp16", "int8"] = "auto"
    """Number format of the model; auto takes the fastest that each executor has, of exports the fastest that passed."""
    max_length: int | None = None
    """Tokens of a pair at most, special tokens included; the passage is cut. Default: as the model was trained."""
    token_budget: int | None = None
    """Padded tokens of one batch; default: what suits the device."""
    max_reject_rate: float = 0.05
    """Share of rejected pairs, 0 to 1, above which the job fails; what it wrote stays."""
    chunks: Literal["auto"] | int = "auto"
    """Parts by hash of query_id that are committed one by one; auto makes them about five minutes long each."""
    rows_per_task: int = 8192
    """Pairs of one Spark task, which is what is done again when an executor dies."""
    incremental: bool = False
    """Score only pairs that came or whose text changed since the last complete run of this model and these settings."""
    run_id: str | None = None
    """Name of the run; default: made of its fingerprint. A name that was used goes on with that run, or is refused."""

    def __post_init__(self) -> None:
        if not 0 <= self.max_reject_rate <= 1:
            raise ConfigError(f"--max-reject-rate is {self.max_reject_rate}; it must lie in [0, 1]")
        for name in ("max_length", "token_budget", "rows_per_task", "chunks"):
            value = getattr(self, name)
            if value is not None and value != "auto" and value < 1:
                raise ConfigError(f"--{name.replace('_', '-')} is {value}; it must be at least 1")
        if self.run_id is not None and not RUN_ID.match(self.run_id):
            raise ConfigError(
                f"--run-id is {self.run_id!r}; it takes up to 100 letters, digits, dots, hyphens, underscores"
            )


def run(spark: SparkSession, config: ScoreConfig) -> RunReport:
    """Score the pairs into `scores` and `rejected_pairs`; run again, the same run goes on or finds itself complete.

    Raises:
        ConfigError: a setting that the model, or the run that it names, cannot meet.
        ModelError: the model folder is missing, incomplete or changed, or lacks the IR file that is asked for.
        InputError: the pairs are missing, empty, or lack a column or its type; or an incremental run cannot tell what
            changed in them.
        RejectRateError: more pairs were rejected than allowed; all that was scored is kept.
        RunFailedError: a task failed for good, or rows went missing.
    """
    model = check_model(config.model, config.backend, config.precision, config.max_length)
    warehouse = Warehouse(spark, config.warehouse)
    pairs = read_pairs(spark, warehouse.table("pairs", config.pairs), config.pairs_version)
    ledger = Ledger(warehouse.table("runs", config.runs))
    settings = settings_of(config, SETTINGS) | model.settings
    identity = Identity(JOB, settings, {"pairs": pairs.version}, model.version)
    base = base_of(ledger, identity, pairs) if config.incremental else None
    if config.incremental and base is None:
        say("no complete run of this model and these settings to add to: scoring all pairs")
    if base is not None and base.run.input_versions["pairs"] == pairs.version:
        say(f"nothing changed since run {base.run.run_id}")
        report = RunReport.of(base.run, base.totals, _outputs(warehouse, config))
        refuse_rejects(report, config.max_reject_rate)
        return report
    identity = since(identity, base) if base else identity
    state = ledger.find(identity, config.run_id)
    if state is not None and config.chunks not in ("auto", state.run.chunks):
        raise ConfigError(f"run {state.run.run_id} is cut into {state.run.chunks} chunks: leave --chunks out")
    rows, gone, chain = pairs.rows, None, []
    if base is not None:
        rows, gone = changed_pairs(pairs, base)
        chain = chain_of(ledger, base.run.run_id)
        refuse_duplicates(warehouse.table("rejected_pairs", config.rejected_pairs), rows.unionByName(gone, True), chain)
    if state is None:
        count = pairs.count() if base is None else rows.count()
        chunks = auto_chunks(count, task_slots(spark), known_rate(ledger, identity))
        chunks = chunks if config.chunks == "auto" else int(config.chunks)
        outputs = _outputs(warehouse, config)
        state = ledger.start(identity, ledger.free_name(identity, config.run_id), count, chunks)
    else:
        outputs = _outputs(warehouse, config)

    def replace_changed(laid_out: DataFrame) -> None:
        ledger.record(state.run, REPLACING)
        for name in ("scores", "rejected_pairs"):
            take_out(outputs[name], laid_out, chain)

    whole = ChunkedRun(
        spark=spark,
        state=state,
        ledger=ledger,
        warehouse=warehouse,
        pairs=rows,
        transform=lambda part, size: transform(part, config, math.ceil(size / config.rows_per_task), model),
        scores=Output(outputs["scores"], scored_rows),
        rejects=Output(outputs["rejected_pairs"], rejected_rows),
        gone=gone,
        finish=replace_changed if base else None,
        require_unchanged=pairs.require_unchanged,
    )
    if state.state == COMPLETE:
        say(f"run {state.run.run_id} is complete since {state.last_seen:%Y-%m-%d %H:%M:%S}: nothing to do")
        drop_staging(warehouse, state.run)  # of a driver that was killed before it came to that
        totals = state.totals
    else:
        totals = whole.complete()
    report = RunReport.of(state.run, totals, outputs)
    refuse_rejects(report, config.max_reject_rate)
    return report


def _outputs(warehouse: Warehouse, config: ScoreConfig) -> dict[str, Table]:
    return {name: warehouse.output(name, getattr(config, name)) for name in ("scores", "rejected_pairs", "runs")}


def transform(
    pairs: DataFrame, config: ScoreConfig, tasks: int | None = None, model: CheckedModel | None = None
) -> DataFrame:
    """Every pair with its score, or with the reason why it has none.

    Rows of one query stay together and in order, so that its text is tokenised once; only a query's many passages are
    spread over several tasks. The same rows in the same number of tasks make the same batches, and so the same scores.

    Args:
        pairs: query_id, passage_id, query, passage (strings, any of them null).
        tasks: how many Spark tasks score them; None leaves it to Spark.
        model: what every executor must find at the model's folder; None takes it as it is now.

    Returns:
        query_id, passage_id, content_hash, score, tokens, padded_tokens, load_id, seconds, error_code, error_message;
        the score is null exactly where the error_code is not. Of rows with the same key, one is scored.
    """
    model = model or check_model(config.model, config.backend, config.precision, config.max_length)
    settings = ScoringSettings(
        model=config.model,
        model_version=model.version,
        backend=config.backend,
        precision=config.precision,
        max_length=config.max_length,
        token_budget=config.token_budget,
        export_version=model.export,
    )
    coded = with_row_code(pairs, tasks)
    scored = coded.withColumn("result", score_udf(settings)(*fit_texts()))
    return scored.select(
        *PAIR_KEY,
        CONTENT_HASH,
        *(F.col(f"result.{name}") for name in (SCORE, TOKENS, PADDED_TOKENS, LOAD_ID, SECONDS)),
        F.coalesce(ROW_CODE, f"result.{ERROR_CODE}").alias(ERROR_CODE),
        F.coalesce(ROW_MESSAGE, f"result.{ERROR_MESSAGE}").alias(ERROR_MESSAGE),
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Score from the command line and print what was done."""
    config, cluster = parse_config("mkdm score", argv, ScoreConfig, ClusterConfig)
    spark = start_session(cluster, f"mkdm score {config.warehouse}")
    print(run(spark, config))


if __name__ == "__main__":
    run_job(main)
