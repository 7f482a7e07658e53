"""How far `mkdm follow` lags behind `ranked_passages`: a flip of all rows, then changes of a share of the queries.

Run it with: python tests/scale/follow.py --queries 100000
"""

import argparse
import shutil
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from cluster.session import ClusterConfig, start_session
from jobs.engine import Warehouse
from jobs.follow import View

TOP_K = 10


def ranking(spark: SparkSession, queries: int, run: str, share: float = 1.0) -> DataFrame:
    """Ten passages for each query; those of a run differ from those of `all` for this share of them."""
    rows = spark.range(queries).crossJoin(spark.range(1, TOP_K + 1).withColumnRenamed("id", "rank"))
    changed = F.when(F.pmod(F.xxhash64("id"), F.lit(10_000)) < 10_000 * share, F.lit(run)).otherwise(F.lit("all"))
    return rows.select(
        F.format_string("query-%09d", "id").alias("query_id"),
        F.col("rank").cast("int").alias("rank"),
        F.concat_ws("-", F.lit("passage"), changed, "id", "rank").alias("passage_id"),
        (1 / (1 + F.col("rank"))).cast("float").alias("score"),
        F.lit("0123456789abcdef").alias("model_version"),
        F.lit("run").alias("run_id"),
    )


def main() -> None:
    """Publish, follow, print."""
    parser = argparse.ArgumentParser(description="Measure the lag of mkdm follow.")
    parser.add_argument("--queries", type=int, default=100_000)
    parser.add_argument("--folder", default="build/follow")
    args = parser.parse_args()
    shutil.rmtree(args.folder, ignore_errors=True)
    warehouse = Warehouse(start_session(ClusterConfig(), "follow", whole_executor=False), args.folder)
    table, path = warehouse.output("ranked_passages"), str(Path(args.folder, "view.sqlite"))
    command = [sys.executable, "-m", "jobs.follow", "--view", path, "--warehouse", args.folder, "--every", "1"]
    follower = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert follower.stdout is not None
    try:
        for name, share in (("first", 1.0), ("all", 1.0), ("0.01 %", 0.0001), ("1 %", 0.01)):
            began = time.monotonic()
            rows = ranking(warehouse.spark, args.queries, name.split()[0], share)
            if share == 1:
                table.overwrite(rows)
            else:
                table.merge_to(rows, ("query_id", "rank"))
            published = time.monotonic() - began
            version = table.latest_version()
            with closing(View(path)) as view:
                while (at := view.stands_at()) is None or at[1] < version:
                    time.sleep(0.1)
            print(f"{name:<8} {args.queries * TOP_K * share:>12,.0f} rows, published in {published:6.1f} s", flush=True)
    finally:
        follower.terminate()
    print(follower.stdout.read(), end="")


if __name__ == "__main__":
    main()
