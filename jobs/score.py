"""Scores all pairs of a table: `mkdm score`, which equals `spark-submit jobs/score.py`."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from py4j.protocol import Py4JError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from cluster.session import ClusterConfig, start_session, task_slots
from jobs.command import run_job
from jobs.commit import commit_staged
from jobs.ledger import FAILED, STARTED, completed, new_run, record
from jobs.pairs import read_pairs
from jobs.progress import progress
from jobs.report import RunReport
from jobs.warehouse import Warehouse
from mkdm.columns import (
    CONTENT_HASH,
    ERROR_CODE,
    ERROR_MESSAGE,
    LOAD_ID,
    PADDED_TOKENS,
    PAIR_KEY,
    PASSAGE,
    PASSAGE_ID,
    QUERY,
    QUERY_ID,
    SCORE,
    TOKENS,
)
from mkdm.config import parse_config
from mkdm.errors import ConfigError, RejectCode, RejectRateError, RunFailedError
from udfs.model import model_version
from udfs.scoring import ScoringSettings, score_udf

JOB = "score"


@dataclass(frozen=True)
class ScoreConfig:
    """Score every pair of a table with a student or a teacher, from Delta to Delta.

    Raises:
        ConfigError: a number outside its range.
    """

    model: str
    """Folder of the model, the same on every machine: a student of ours or a sequence-classification checkpoint."""
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
    backend: Literal["auto", "torch"] = "auto"
    """What runs the model."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Number format of the model; auto takes the fastest that each executor has."""
    max_length: int | None = None
    """Tokens of a pair at most, special tokens included; the passage is cut. Default: as the model was trained."""
    token_budget: int | None = None
    """Padded tokens of one batch; default: what suits the device."""
    max_reject_rate: float = 0.05
    """Share of rejected pairs, 0 to 1, above which the job fails; what it wrote stays."""
    rows_per_task: int = 16384
    """Pairs of one Spark task, which is what is done again when an executor dies."""

    def __post_init__(self) -> None:
        if not 0 <= self.max_reject_rate <= 1:
            raise ConfigError(f"--max-reject-rate is {self.max_reject_rate}; it must lie in [0, 1]")
        for name in ("max_length", "token_budget", "rows_per_task"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"--{name.replace('_', '-')} is {value}; it must be at least 1")


def run(spark: SparkSession, config: ScoreConfig) -> RunReport:
    """Score the pairs into `scores` and `rejected_pairs`; run again, the same run goes on or finds itself complete.

    Raises:
        ModelError: the model folder is missing, incomplete or changed.
        InputError: the pairs are missing, empty, or lack a column or its type.
        RejectRateError: more pairs were rejected than allowed; all that was scored is kept.
        RunFailedError: a task failed for good, or rows went missing.
    """
    started = time.monotonic()
    version = model_version(config.model)
    warehouse = Warehouse(spark, config.warehouse)
    pairs = read_pairs(spark, warehouse.table("pairs", config.pairs), config.pairs_version)
    settings = {name: getattr(config, name) for name in ("backend", "precision", "max_length")}
    this_run = new_run(JOB, settings, {"pairs": pairs.version}, version)
    outputs = {name: warehouse.output(name, getattr(config, name)) for name in ("scores", "rejected_pairs", "runs")}
    runs = outputs["runs"]
    totals = completed(runs, this_run)
    if totals is None:
        record(runs, this_run, STARTED)
        staged = warehouse.table(f"staging_{this_run.run_id.replace('-', '_')}")
        try:
            if not staged.exists():  # Delta writes it whole or not at all
                tasks = max(-(-pairs.count // config.rows_per_task), min(task_slots(spark), -(-pairs.count // 1024)))
                with progress(spark, "scoring", pairs.count):
                    staged.overwrite(transform(pairs.rows.repartition(tasks, QUERY_ID), config))
            totals = commit_staged(staged, outputs, this_run, pairs.count, started)
        except (PySparkException, Py4JError, RunFailedError) as error:
            record(runs, this_run, FAILED)
            raise RunFailedError(f"run {this_run.run_id} failed: {_cause(error)}") from error
    report = RunReport.of(this_run, totals, outputs)
    if report.reject_rate > config.max_reject_rate:
        raise RejectRateError(
            f"{report.reject_rate:.1%} of the pairs were rejected ({report.reasons()}), more than --max-reject-rate "
            f"{config.max_reject_rate:.1%}: see {outputs['rejected_pairs'].location} where run_id = {this_run.run_id}"
        )
    return report


def transform(pairs: DataFrame, config: ScoreConfig) -> DataFrame:
    """Every pair with its score, or with the reason why it has none.

    Rows of one query stay together and in order, so that its text is tokenised once and `scores` is clustered by query.

    Args:
        pairs: query_id, passage_id, query, passage (strings, any of them null).

    Returns:
        query_id, passage_id, content_hash, score, tokens, padded_tokens, error_code, error_message, load_id; the score
        is null exactly where the error_code is not. Of rows with the same key, one is scored.
    """
    settings = ScoringSettings(
        model=config.model,
        model_version=model_version(config.model),
        backend=config.backend,
        precision=config.precision,
        max_length=config.max_length,
        token_budget=config.token_budget,
    )
    copy = F.row_number().over(Window.partitionBy(*PAIR_KEY).orderBy(CONTENT_HASH))
    null_key = F.col(QUERY_ID).isNull() | F.col(PASSAGE_ID).isNull()
    unreadable = ~F.is_valid_utf8(QUERY) | ~F.is_valid_utf8(PASSAGE)
    hashed = pairs.withColumn(CONTENT_HASH, F.xxhash64(QUERY, PASSAGE)).withColumn("copy", copy)
    code = (
        F.when(null_key, RejectCode.NULL_KEY.value)
        .when(F.col("copy") > 1, RejectCode.DUPLICATE_KEY.value)
        .when(unreadable, RejectCode.INVALID_TEXT.value)
    )
    message = (
        F.when(null_key, "query_id or passage_id is null")
        .when(F.col("copy") > 1, "another row has the same query_id and passage_id")
        .when(unreadable, "query or passage is not valid UTF-8")
    )
    coded = hashed.withColumn("row_code", code).withColumn("row_message", message)
    fit = F.col("row_code").isNull()  # only these reach the model
    result = score_udf(settings)(F.when(fit, F.col(QUERY)), F.when(fit, F.col(PASSAGE)))
    scored = coded.withColumn("result", result)
    return scored.select(
        *PAIR_KEY,
        CONTENT_HASH,
        *(F.col(f"result.{name}") for name in (SCORE, TOKENS, PADDED_TOKENS, LOAD_ID)),
        F.coalesce("row_code", f"result.{ERROR_CODE}").alias(ERROR_CODE),
        F.coalesce("row_message", f"result.{ERROR_MESSAGE}").alias(ERROR_MESSAGE),
    )


def _cause(error: Exception) -> str:
    """The line of a Python worker's traceback that names the exception, or the first line of anything else."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    named = [line for line in lines if line.startswith("mkdm.errors.")]
    return (named or lines or [type(error).__name__])[0].removeprefix("mkdm.errors.")


def main(argv: Sequence[str] | None = None) -> None:
    """Score from the command line and print what was done."""
    config, cluster = parse_config("mkdm score", argv, ScoreConfig, ClusterConfig)
    spark = start_session(cluster, f"mkdm score {config.warehouse}")
    print(run(spark, config))


if __name__ == "__main__":
    run_job(main)
