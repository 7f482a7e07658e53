"""Ways to keep the best passages of each query, side by side: seconds, bytes shuffled and spilled.

    python tests/scale/ranking.py --work DIR [--rows 10000000] [--top-k 10 2000] [--rounds 2]

The table is as the engine writes `scores`: a commit a chunk, files sorted by query and passage; then as it is after an
incremental run, which takes 1 % of the rows out of their files and writes them anew. All ways must rank alike. Bytes
are those of Spark's own event log.
"""

import argparse
import shutil
import time
from pathlib import Path

from funnel import moved
from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F
from pyspark.sql.internal import InternalFunction

from cluster.session import ClusterConfig, start_session
from jobs.rank import transform
from mkdm.columns import MODEL_VERSION, PASSAGE_ID, QUERY_ID, RANK, RUN_ID, SCORE

RANKED = (QUERY_ID, RANK, PASSAGE_ID, SCORE, MODEL_VERSION, RUN_ID)
THRESHOLD = "spark.sql.optimizer.windowGroupLimitThreshold"
FALLBACK = "spark.sql.objectHashAggregate.sortBased.fallbackThreshold"
PASSAGES = 374  # of a query, as in the funnel's 9.7 million pairs


def write_scores(spark: SparkSession, folder: str, rows: int, chunks: int = 8, files: int = 5) -> None:
    """Scores of `rows` pairs, of which 1 % are another run's."""
    query = F.floor(F.col("id") / PASSAGES)
    document = F.pmod(F.xxhash64(query, F.floor(F.pmod("id", F.lit(PASSAGES)) / 10)), F.lit(100_000))
    scores = spark.range(rows).select(
        F.format_string("query-%08d", query).alias(QUERY_ID),
        F.format_string("document-%06d:%016x", document, F.xxhash64("id")).alias(PASSAGE_ID),
        F.round(F.pmod(F.xxhash64("id", F.lit(1)), F.lit(10_000)) / 10_000, 3).cast("float").alias(SCORE),  # with ties
        F.lit("student-0123456789ab").alias(MODEL_VERSION),
        F.xxhash64("id", F.lit(2)).alias("content_hash"),
        F.when(F.pmod(F.xxhash64("id", F.lit(3)), F.lit(100)) == 0, "run.2").otherwise("run").alias(RUN_ID),
        F.lit("2026-01-01").cast("timestamp").alias("scored_at"),
    )
    chunk = F.pmod(F.hash(QUERY_ID), F.lit(chunks))
    for number in range(chunks + 1):
        mine = (F.col(RUN_ID) == "run.2") if number == chunks else (chunk == number) & (F.col(RUN_ID) == "run")
        part = scores.where(mine).repartitionByRange(1 if number == chunks else files, QUERY_ID)
        part.sortWithinPartitions(QUERY_ID, PASSAGE_ID).write.format("delta").mode("append").save(folder)


def by_window(scores: DataFrame, top_k: int) -> DataFrame:
    """Row numbers; Spark puts its own limit below the shuffle, up to `THRESHOLD`."""
    order = Window.partitionBy(QUERY_ID).orderBy(F.desc(SCORE), PASSAGE_ID)
    return scores.withColumn(RANK, F.row_number().over(order)).where(F.col(RANK) <= top_k).select(*RANKED)


def by_heap(scores: DataFrame, top_k: int) -> DataFrame:
    """A bounded heap of a query in an aggregate, by Spark's internal collect_top_k."""
    row = F.struct((-F.col(SCORE)).alias("minus"), PASSAGE_ID, SCORE, MODEL_VERSION, RUN_ID)
    best = scores.groupBy(QUERY_ID).agg(InternalFunction.collect_top_k(row, top_k, True).alias("best"))
    return best.select(QUERY_ID, F.posexplode("best").alias("position", "row")).select(
        QUERY_ID, (F.col("position") + 1).alias(RANK), *(f"row.{name}" for name in RANKED[2:])
    )


def whole_sort(scores: DataFrame, top_k: int) -> DataFrame:
    """Row numbers without Spark's limit."""
    return by_window(scores, top_k)


WAYS = {
    "all rows shuffled, then row numbers": (whole_sort, {THRESHOLD: "-1"}),
    "row numbers, limited before": (by_window, {THRESHOLD: "2147483647"}),
    "heap": (by_heap, {}),
    "heap, no sort for many queries": (by_heap, {FALLBACK: "10000000"}),
    "heap of ours": (transform, {}),
}


def per_query(scores: DataFrame, top_k: int) -> DataFrame:
    """What the check of the number of rows asks, as another query."""
    return scores.groupBy(QUERY_ID).count().agg(F.count("*"), F.sum(F.least("count", F.lit(top_k))))


def run_once(spark: SparkSession, rows: DataFrame, log: Path, conf: dict[str, str], out: str) -> str:
    _, line = moved(log, 0)
    for key, value in conf.items():
        spark.conf.set(key, value)
    began = time.monotonic()
    rows.write.format("parquet").mode("overwrite").save(out)
    seconds = time.monotonic() - began
    for key in conf:
        spark.conf.unset(key)
    time.sleep(2)  # the log is written behind
    sums, _ = moved(log, line)
    return f"{seconds:6.1f} s, shuffled {sums['shuffled'] / 1e6:8.1f} MB, spilled {sums['spilled'] / 1e6:8.1f} MB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", required=True)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--top-k", type=int, nargs="+", default=[10, 2000])
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    work = Path(arguments.work)
    events = work / "events"
    shutil.rmtree(events, ignore_errors=True)
    events.mkdir(parents=True)
    conf = {
        "spark.ui.enabled": "false",
        "spark.eventLog.enabled": "true",
        "spark.eventLog.dir": events.as_uri(),
        "spark.eventLog.compress": "false",
        "spark.eventLog.rolling.enabled": "false",
    }
    spark = start_session(ClusterConfig(), "ranking", conf, whole_executor=False)
    log = next(events.iterdir())
    folder = str(work / f"scores-{arguments.rows}")
    if not Path(folder).exists():
        write_scores(spark, folder, arguments.rows)
    scores = spark.read.format("delta").load(folder).where(F.col(RUN_ID).isin("run", "run.2"))
    for top_k in arguments.top_k:
        print(f"\n{arguments.rows:,} scores, top {top_k}", flush=True)
        for _ in range(arguments.rounds):
            for name, (way, settings) in WAYS.items():
                told = run_once(spark, way(scores, top_k), log, settings, str(work / name.replace(" ", "-")))
                print(f"{name:<40}{told}", flush=True)
            told = run_once(spark, per_query(scores, top_k), log, {}, str(work / "check"))
            print(f"{'the number of rows, asked apart':<40}{told}", flush=True)
        ranked = {name: spark.read.parquet(str(work / name.replace(" ", "-"))) for name in WAYS}
        first, *others = [
            (rows.count(), rows.agg(F.sum(F.xxhash64(*RANKED) % 1000)).first()) for rows in ranked.values()
        ]
        assert all(other == first for other in others), {name: rows.count() for name, rows in ranked.items()}
    spark.stop()


if __name__ == "__main__":
    main()
