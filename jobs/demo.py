"""Scores the shipped sample from Delta to Delta and shows what came of it: `mkdm demo`."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from cluster.session import ClusterConfig, start_session
from jobs.engine import RunReport, Warehouse, one_line, run_job
from jobs.score import ScoreConfig
from jobs.score import run as run_score
from mkdm.columns import GOLDEN_LABEL, PAIR_KEY, PASSAGE, QUERY, QUERY_ID, SCORE
from mkdm.config import parse_config
from mkdm.errors import InputError
from udfs.quality import quality_by

SAMPLE = Path(__file__).resolve().parent.parent / "tests" / "sample"
WAREHOUSE = Path("build", "demo")
SNIPPET = 88
"""Characters of a passage that fit beside its score."""


@dataclass(frozen=True)
class DemoConfig:
    """Score the shipped sample of real pairs with the shipped student, in build/demo, and show what came of it."""

    sample: str = str(SAMPLE)
    """Folder with pairs.parquet, golden_labels.parquet and student/."""


@one_line
def run(spark: SparkSession, config: DemoConfig) -> tuple[RunReport, DataFrame]:
    """Make a warehouse of the sample, score it, and join the scores to their golden labels.

    Returns:
        The run's report, and query_id, passage_id, query, passage, score, golden_label, source.

    Raises:
        InputError: the sample is not there, as in an installation without the checkout.
    """
    sample = Path(config.sample)
    missing = [name for name in ("pairs.parquet", "golden_labels.parquet", "student") if not (sample / name).exists()]
    if missing:
        raise InputError(f"{sample} lacks {', '.join(missing)}: run the demo in a checkout, or pass --sample DIR")
    shutil.rmtree(WAREHOUSE, ignore_errors=True)
    warehouse = Warehouse(spark, str(WAREHOUSE))
    for name in ("pairs", "golden_labels"):
        warehouse.table(name).overwrite(spark.read.parquet(str(sample.resolve() / f"{name}.parquet")))
    report = run_score(spark, ScoreConfig(model=str(sample / "student"), warehouse=str(WAREHOUSE)))
    scores = warehouse.table("scores").read().select(*PAIR_KEY, SCORE)
    labelled = warehouse.table("pairs").read().join(scores, list(PAIR_KEY))
    labelled = labelled.join(warehouse.table("golden_labels").read().select(*PAIR_KEY, GOLDEN_LABEL), list(PAIR_KEY))
    return report, labelled.withColumn("source", F.split(QUERY_ID, ":")[0]).cache()


def three_queries(labelled: DataFrame) -> str:
    """The passages of three queries in order of score: of three sources, the first query that has a golden passage."""
    answered = labelled.groupBy("source", QUERY_ID).agg(F.count("*").alias("n"), F.max(GOLDEN_LABEL).alias("golden"))
    first = answered.where("n >= 4 and golden = 1").groupBy("source").agg(F.min(QUERY_ID).alias(QUERY_ID))
    shown = first.orderBy(F.desc("source")).limit(3).select(QUERY_ID)
    lines = []
    query = None
    for row in labelled.join(shown, QUERY_ID).orderBy(QUERY, F.desc(SCORE)).collect():
        if row[QUERY] != query:
            query = row[QUERY]
            lines.append(f"\n{query}  ({row['source']})\n  score  golden  passage")
        snippet = " ".join(row[PASSAGE].split())[:SNIPPET]
        lines.append(f"  {row[SCORE]:.3f}  {row[GOLDEN_LABEL]:>6}  {snippet}…")
    return "\n".join(lines)


def quality_table(labelled: DataFrame) -> str:
    """ACC and AUC by source, beside the AUC of word overlap."""
    table = quality_by(labelled, "source").orderBy(F.col("source") == "all", "source").toPandas()
    table.columns = ["source", "pairs", "golden", "ACC", "AUC", "AUC of word overlap"]
    return str(table.to_string(index=False, float_format="{:.3f}".format))


def main(argv: Sequence[str] | None = None) -> None:
    """Run the demo and print its tables."""
    config, cluster = parse_config("mkdm demo", argv, DemoConfig, ClusterConfig)
    report, labelled = run(start_session(cluster, "mkdm demo"), config)
    print("Three queries of the sample, their passages in order of score:")
    print(three_queries(labelled))
    print("\nQuality on the sample, all sources and each:\n")
    print(quality_table(labelled))
    print("\nThe run:\n")
    print(report)
    print("\nYour own: mkdm score --model tests/sample/student --pairs FILE (a .csv, .jsonl, .parquet or Delta table)")


if __name__ == "__main__":
    run_job(main)
