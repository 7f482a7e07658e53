"""How the engine around the scorer grows with its input: `python tests/scale/scale_run.py --rows 100000 1000000`.

A stand-in takes the scorer's place, which makes scores of text lengths; all else is the job as it is. Each size is
scored, then changed by 1 % and scored incrementally, and beside it the same UDF is written by a plain
`write.format("delta")`.
"""

import argparse
import json
import shutil
import sys
import time
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.functions import pandas_udf

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT))  # not an installed package

from cluster.session import ClusterConfig, start_session  # noqa: E402
from jobs import score  # noqa: E402
from jobs.engine import chunked_run as chunked  # noqa: E402
from jobs.engine import scoring  # noqa: E402
from jobs.engine.pairs import read_pairs  # noqa: E402
from jobs.engine.warehouse import Warehouse  # noqa: E402
from udfs.scoring import BLOCK_PAIRS, RESULT, _block_scorer  # noqa: E402
from udfs.workers import one_task  # noqa: E402

COMPILED = "-XX:ReservedCodeCacheSize=240m"
"""By all tiers, as executors do; a session on one machine compiles lightly, and then takes thrice the time."""
WORDS = "a gasket is a mechanical seal which fills the space between two or more mating surfaces "


def stand_in(_settings: object) -> Any:
    """In place of `score_udf`: a score from the lengths of the texts, at no cost worth speaking of."""

    def score(batches):
        yield from one_task(results(batches))

    def results(batches):
        for queries, passages, pairs in chain.from_iterable(zip(*batch, strict=True) for batch in batches):
            lengths = [np.array([len(text or "") for text in texts], dtype=np.int32) for texts in (queries, passages)]
            packed = np.asarray(pairs)
            both = lengths[0][packed // BLOCK_PAIRS] + lengths[1][packed % BLOCK_PAIRS]
            result = {"score": ((both % 1000) / 1000).astype("float32"), "tokens": both, "padded_tokens": both}
            errors = {"error_code": [], "error_message": []}
            yield pd.DataFrame([{**result, **errors, "load_id": "stand-in", "seconds": 0.0}])

    score.__annotations__ = _block_scorer(None).__annotations__
    return pandas_udf(score, RESULT).asNondeterministic()


def plain_stand_in() -> Any:
    """The same for rows of pairs, as a user without this engine would write it."""

    @pandas_udf("float")
    def score(queries: pd.Series, passages: pd.Series) -> pd.Series:
        return ((queries.str.len() + passages.str.len()) % 1000 / 1000).astype("float32")

    return score.asNondeterministic()


def make_pairs(spark: SparkSession, rows: int, first: int = 0) -> DataFrame:
    """Pairs of 20 passages per query, of some 300 bytes each."""
    number = F.col("id")
    return spark.range(first, first + rows).select(
        F.concat(F.lit("q"), (number / 20).cast("long")).alias("query_id"),
        F.concat(F.lit("p"), number).alias("passage_id"),
        F.concat(F.lit("what is a gasket of type "), (number / 20).cast("long")).alias("query"),
        F.concat(number.cast("string"), F.lit(" "), F.repeat(F.lit(WORDS), (number % 5 + 1).cast("int"))).alias(
            "passage"
        ),
    )


class Meter:
    """Bytes that this JVM read through Hadoop's file systems and shuffled, and its heap after a collection."""

    def __init__(self, spark: SparkSession) -> None:
        self._jvm: Any = spark._jvm
        self._store: Any = spark.sparkContext._jsc.sc().statusStore()

    def bytes_read(self) -> int:
        statistics = self._jvm.org.apache.hadoop.fs.FileSystem.getAllStatistics()
        return sum(statistics.get(i).getBytesRead() for i in range(statistics.size()))

    def bytes_shuffled(self) -> int:
        return int(self._store.executorSummary("driver").totalShuffleWrite())

    def core_seconds(self) -> float:
        """Of this process and all that it started, those that ended included."""
        me = psutil.Process()
        times = [process.cpu_times() for process in (me, *me.children(recursive=True))]
        return sum(one.user + one.system + one.children_user + one.children_system for one in times)

    def live_heap_mb(self) -> float:
        self._jvm.java.lang.System.gc()
        runtime = self._jvm.java.lang.Runtime.getRuntime()
        return (runtime.totalMemory() - runtime.freeMemory()) / 2**20


def log_of(warehouse: Warehouse) -> tuple[int, int]:
    """Commits and bytes of all Delta logs but that of the pairs."""
    files = [path for path in Path(warehouse.root).glob("*/_delta_log/*") if "/pairs/" not in str(path)]
    return sum(path.suffix == ".json" for path in files), sum(path.stat().st_size for path in files)


def measure(
    spark: SparkSession, folder: Path, rows: int, rows_per_chunk: int, built: Path | None = None, plain: bool = True
) -> dict[str, float]:
    """One size: the job, the same again, 1 % changed, and perhaps the plain write."""
    shutil.rmtree(folder, ignore_errors=True)
    warehouse, meter = Warehouse(spark, str(folder)), Meter(spark)
    pairs = warehouse.table("pairs")
    if built is None:
        writer = make_pairs(spark, rows).repartition(max(2, rows // 500_000)).write.format("delta")
        writer.option("delta.enableChangeDataFeed", "true").save(pairs.location)
    else:
        shutil.copytree(built, folder)
        rows = pairs.read().count()
    stored = sum(path.stat().st_size for path in Path(pairs.location).glob("*.parquet"))
    config = score.ScoreConfig(
        model=str(ROOT / "tests" / "sample" / "student"),
        warehouse=str(folder),
        precision="fp32",  # auto would time the model that the stand-in stands for
        chunks=max(1, rows // rows_per_chunk),
    )
    marks: dict[str, float] = {}

    def mark(module: Any, name: str, label: str) -> None:
        function = getattr(module, name)

        def timed(*args: Any) -> Any:
            began = time.monotonic()
            try:
                return function(*args)
            finally:
                marks[label] = marks.get(label, 0.0) + time.monotonic() - began

        setattr(module, name, timed)

    originals = chunked.lay_out, chunked.commit_chunk
    mark(chunked, "lay_out", "layout_s")
    mark(chunked, "commit_chunk", "commit_s")
    before, shuffled, began = meter.bytes_read(), meter.bytes_shuffled(), time.monotonic()
    cores = meter.core_seconds()
    report = score.run(spark, config)
    seconds, cores = time.monotonic() - began, meter.core_seconds() - cores
    read, shuffled = meter.bytes_read() - before, meter.bytes_shuffled() - shuffled
    chunked.lay_out, chunked.commit_chunk = originals
    commits, log_bytes = log_of(warehouse)
    heap = meter.live_heap_mb()

    began = time.monotonic()
    score.run(spark, config)
    again = time.monotonic() - began

    if built is None:
        pairs.append(make_pairs(spark, rows // 200, rows), "more")
        changed = "SET passage = concat(passage, ' changed') WHERE pmod(xxhash64(passage_id), 200) = 7"
        spark.sql(f"UPDATE {pairs.sql_name} {changed}")
    else:
        document = "substring_index(passage_id, ':', size(split(passage_id, ':')) - 1)"
        pairs.delete(f"pmod(xxhash64({document}), 100) = 7")
    began, added_cores = time.monotonic(), meter.core_seconds()
    added = score.run(spark, score.ScoreConfig(**(vars(config) | {"incremental": True, "chunks": "auto"})))
    incremental, added_cores = time.monotonic() - began, meter.core_seconds() - added_cores

    figures = {
        "rows": rows,
        "chunks": report.run.chunks,
        "seconds": seconds,
        "us_per_row": seconds / rows * 1e6,
        "core_us_per_row": cores / rows * 1e6,
        **marks,
        "read_of_input": read / stored,
        "shuffled_per_row": shuffled / rows,
        "commits": commits,
        "log_kb": log_bytes / 1e3,
        "scores_files": len(list(Path(folder, "scores").glob("*.parquet"))),
        "live_heap_mb": heap,
        "again_s": again,
        "changed_rows": added.totals.rows_read,
        "incremental_s": incremental,
        "incremental_core_s": added_cores,
    }
    print(json.dumps(figures), file=sys.stderr)  # in case what follows is cut off
    if plain:
        table, began, plain_cores = warehouse.table("plain"), time.monotonic(), meter.core_seconds()
        rows_in = read_pairs(spark, pairs, 0 if built is None else None).rows.repartition(
            max(1, rows // config.rows_per_task), "query_id"
        )
        scored = rows_in.select("query_id", "passage_id", plain_stand_in()("query", "passage").alias("score"))
        scored.write.format("delta").save(table.location)
        figures["plain_s"] = time.monotonic() - began
        figures["plain_core_us_per_row"] = (meter.core_seconds() - plain_cores) / rows * 1e6
    return figures


def main() -> None:
    """Measure each size and print a JSON line for it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--rows", type=int, nargs="*", default=[100_000, 1_000_000])
    parser.add_argument("--built", type=Path, nargs="*", default=[], help="warehouses that build-pairs made")
    parser.add_argument("--rows-per-chunk", type=int, default=250_000)
    parser.add_argument("--folder", default="build/scale", help="where the tables go; about 150 bytes a row, twice")
    parser.add_argument("--without-plain", action="store_true", help="leave the plain write out")
    arguments = parser.parse_args()
    scoring.score_udf = stand_in
    conf = {"spark.ui.enabled": "false", "spark.driver.extraJavaOptions": COMPILED}
    spark = start_session(ClusterConfig(), "scale", conf)
    plain = not arguments.without_plain
    measure(spark, Path(arguments.folder), 10_000, arguments.rows_per_chunk, plain=plain)  # warms the JVM
    inputs = [(int(rows), None) for rows in arguments.rows] + [(0, built) for built in arguments.built]
    for rows, built in inputs:
        figures = measure(spark, Path(arguments.folder), rows, arguments.rows_per_chunk, built, plain)
        print(json.dumps({name: round(value, 2) for name, value in figures.items()}), flush=True)


if __name__ == "__main__":
    main()
