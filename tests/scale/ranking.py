"""Ways to keep the best passages of each query, side by side: seconds, bytes shuffled and spilled.

    python tests/scale/ranking.py --work DIR [--rows 10000000] [--top-k 10 2000] [--rounds 2]

The table is as the engine leaves `scores` after an incremental run: files sorted by query and passage, 1 % of the rows
taken out of theirs and written anew. All ways must rank alike. Bytes are those of Spark's own event log.
"""

import argparse
import shutil
import time
from pathlib import Path

from funnel import moved
from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from cluster.session import ClusterConfig, start_session
from jobs.rank import transform
from mkdm.columns import MODEL_VERSION, PASSAGE_ID, QUERY_ID, RANK, RUN_ID, SCORE

RANKED = (QUERY_ID, RANK, PASSAGE_ID, SCORE, MODEL_VERSION, RUN_ID)
THRESHOLD = "spark.sql.optimizer.windowGroupLimitThreshold"
FALLBACK = "spark.sql.objectHashAggregate.sortBased.fallbackThreshold"
PASSAGES = 374  # of a query, as in the funnel's 9.7 million pairs


def write_scores(spark: SparkSession, folder: str, rows: int, rows_of_file: int = 250_000) -> None:
    """Scores of `rows` pairs, of which 1 % are another run's."""
    query = F.floor(F.col("id") / PASSAGES)
    score = F.round(F.pmod(F.xxhash64("id", F.lit(1)), F.lit(10_000)) / 10_000, 3).cast("float")  # with ties
    scores = spark.range(0, rows, 1, max(1, rows // rows_of_file)).select(
        F.concat(F.lit("query-"), F.lpad(query.cast("string"), 8, "0")).alias(QUERY_ID),
        F.concat_ws(":", F.crc32(F.floor(F.col("id") / 10).cast("string")), F.hex(F.xxhash64("id"))).alias(PASSAGE_ID),
        score.alias(SCORE),
        F.lit("student-0123456789ab").alias(MODEL_VERSION),
        F.xxhash64("id", F.lit(2)).alias("content_hash"),
        F.when(F.pmod(F.xxhash64("id", F.lit(3)), F.lit(100)) == 0, "run.2").otherwise("run").alias(RUN_ID),
        F.lit("2026-01-01").cast("timestamp").alias("scored_at"),
    )
    for run_id in ("run", "run.2"):
        part = scores.where(F.col(RUN_ID) == run_id)
        part = part.coalesce(1) if run_id == "run.2" else part
        part.sortWithinPartitions(QUERY_ID, PASSAGE_ID).write.format("delta").mode("append").save(folder)


def by_window(scores: DataFrame, top_k: int) -> DataFrame:
    """Row numbers; Spark puts its own limit below the shuffle, up to `THRESHOLD`."""
    order = Window.partitionBy(QUERY_ID).orderBy(F.desc(SCORE), PASSAGE_ID)
    return scores.withColumn(RANK, F.row_number().over(order)).where(F.col(RANK) <= top_k).select(*RANKED)


WAYS = {
    "row numbers, all rows shuffled": (by_window, {THRESHOLD: "-1"}),
    "row numbers, Spark's limit before": (by_window, {THRESHOLD: "2147483647"}),
    "heaps, as mkdm rank does": (transform, {}),
    "heaps, however many queries": (transform, {FALLBACK: "2147483647"}),
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
            print(f"{'how many rows there must be, alone':<40}{told}", flush=True)
        ranked = {name: spark.read.parquet(str(work / name.replace(" ", "-"))) for name in WAYS}
        first, *others = [
            (rows.count(), rows.agg(F.sum(F.xxhash64(*RANKED) % 1000)).first()) for rows in ranked.values()
        ]
        assert all(other == first for other in others), {name: rows.count() for name, rows in ranked.items()}
    spark.stop()


if __name__ == "__main__":
    main()
