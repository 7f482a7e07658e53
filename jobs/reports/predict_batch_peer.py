"""Scores a Delta table of pairs with Spark's `predict_batch_udf`: a peer of `mkdm benchmark`, and no way to score."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass

from pyspark.sql import DataFrame, SparkSession

from cluster.session import ClusterConfig, start_session, task_slots
from jobs.engine import run_job
from mkdm.columns import PAIR_KEY, PASSAGE, QUERY, SCORE
from mkdm.config import parse_config
from udfs.peers import plain_score_udf


@dataclass(frozen=True)
class PredictBatchConfig:
    """Score a Delta table of pairs with a plain transformers model under `predict_batch_udf`, into a Delta table."""

    model: str
    """Folder of the plain model."""
    pairs: str
    """Folder of the Delta table with query_id, passage_id, query, passage."""
    scores: str
    """Folder of the Delta table to write: query_id, passage_id, score."""
    precision: str = "fp32"
    """Number format of the model: fp32, bf16 or fp16."""


def run(spark: SparkSession, config: PredictBatchConfig) -> float:
    """Score all pairs.

    Returns:
        Seconds from reading to committed, the model's load included.
    """
    started = time.perf_counter()
    pairs = spark.read.format("delta").load(config.pairs).repartition(task_slots(spark))
    transform(pairs, config).write.format("delta").mode("overwrite").save(config.scores)
    return time.perf_counter() - started


def transform(pairs: DataFrame, config: PredictBatchConfig) -> DataFrame:
    """query_id, passage_id, query, passage -> query_id, passage_id, score (float)."""
    return pairs.select(*PAIR_KEY, plain_score_udf(config.model, config.precision)(QUERY, PASSAGE).alias(SCORE))


def main(argv: Sequence[str] | None = None) -> None:
    """Score, and print the seconds as a line of JSON."""
    config, cluster = parse_config("python -m jobs.reports.predict_batch_peer", argv, PredictBatchConfig, ClusterConfig)
    seconds = run(start_session(cluster, "predict_batch_udf"), config)
    print(json.dumps({"precision": config.precision, "seconds": seconds}))


if __name__ == "__main__":
    run_job(main)
