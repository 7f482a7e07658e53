"""Makes an archive of the classes that Spark and Delta Lake load, so that a JVM on this machine starts from it.

Run as `python -m cluster.class_archive`; `make` does. A third of the processor time of a short run is the JVM reading
and checking some 20,000 classes, each time the same. Java's class data sharing (JEP 350) keeps them as they are in
memory. The archive, 190 MB, lies in the Python environment and goes with it. A JVM that it does not suit, since JARs or
Java changed, starts without it.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from cluster.errors import ClusterError
from cluster.java import DUMP_VARIABLE, archive_path, check_java
from cluster.session import ClusterConfig, start_session

_SECONDS = 300


def make_archive() -> Path | None:
    """Make it, if it is not there.

    Returns:
        Where it is; None if this Java makes none, which costs nothing but time at each start.

    Raises:
        ClusterError: Java or Delta Lake's JARs are missing.
        OSError: the environment takes no file.
    """
    check_java()
    path = archive_path()
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder, path.name)
        environment = os.environ | {DUMP_VARIABLE: str(made)}
        done = subprocess.run(
            [sys.executable, "-P", "-m", "cluster.class_archive", folder],
            env=environment,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
        if done.returncode:
            raise ClusterError(
                f"no archive of Spark's classes: {(done.stderr.strip() or 'no reason').splitlines()[-1]}"
            )
        if not made.exists():
            return None
        for old in path.parent.glob("classes-*.jsa"):
            with suppress(OSError):
                old.unlink()
        shutil.move(made, path)
    return path


def _load_classes(folder: str) -> None:
    """Do once what jobs do, and end the JVM, which writes the archive before it is gone."""
    from pyspark import SparkContext
    from pyspark.sql import functions as F

    spark = start_session(ClusterConfig(), "classes")
    rows, one, other = (str(Path(folder, name)) for name in ("rows", "one", "other"))
    spark.range(1000).selectExpr("id", "id % 7 AS k", "array(cast(id AS string)) AS texts").write.parquet(rows)
    for table in (one, other):
        spark.sql(f"CREATE TABLE delta.`{table}` (k BIGINT, n BIGINT, texts ARRAY<STRING>, at TIMESTAMP) USING DELTA")
    grouped = spark.read.parquet(rows).groupBy("k").agg(F.count("*").alias("n"), F.flatten(F.collect_list("texts")))
    grouped = grouped.toDF("k", "n", "texts").mapInArrow(lambda batches: batches, "k long, n long, texts array<string>")
    stamped = grouped.repartitionByRange(2, "k").sortWithinPartitions("k").withColumn("at", F.current_timestamp())
    for number in range(2):
        stamped.write.format("delta").option("txnAppId", "classes").option("txnVersion", number).mode("append").save(
            one
        )
    spark.sql(
        f"MERGE INTO delta.`{other}` o USING (SELECT DISTINCT k, 1 AS n FROM delta.`{one}` WHERE n > 3) s ON o.k = s.k "
        "WHEN MATCHED THEN UPDATE SET n = s.n WHEN NOT MATCHED THEN INSERT (k, n) VALUES (s.k, s.n)"
    )
    there = spark.read.format("delta").load(one).join(spark.read.format("delta").load(other).select("k"), "k")
    there.groupBy("k").agg(F.sum("n"), F.max("at")).orderBy("k").collect()
    spark.sql(f"DESCRIBE HISTORY delta.`{one}`").collect()
    gateway = SparkContext._gateway
    spark.stop()
    assert gateway is not None
    gateway.shutdown()
    gateway.proc.stdin.close()  # type: ignore[attr-defined]
    gateway.proc.wait(_SECONDS)  # type: ignore[attr-defined]


if __name__ == "__main__":
    if len(sys.argv) > 1:
        _load_classes(sys.argv[1])
    else:
        try:
            make_archive()
        except (ClusterError, OSError, subprocess.TimeoutExpired) as error:
            print(f"Each start of Spark takes some seconds longer than it could: {error}", file=sys.stderr)
