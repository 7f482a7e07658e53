"""Delta Lake's settings and JARs: resolved by Spark from a Maven repository, or taken from a folder."""

import os
from pathlib import Path

from pyspark.sql import SparkSession

from cluster.connect import is_connect
from cluster.errors import ClusterError

JARS_VARIABLE = "MKDM_JARS"
EXTENSION = "io.delta.sql.DeltaSparkSessionExtension"
SESSION_CONF = {
    "spark.sql.extensions": EXTENSION,
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
}


def delta_package() -> str:
    """The Maven coordinates of the Delta Lake for the installed delta-spark and pyspark, as its helper tells them."""
    from delta import configure_spark_with_delta_pip  # which a client of Spark Connect does without

    package: str = configure_spark_with_delta_pip(SparkSession.Builder())._options["spark.jars.packages"]
    return package


def jar_conf(jars: str | None) -> dict[str, str]:
    """Where a JVM that is yet to start gets Delta's JARs from.

    Args:
        jars: a folder of JARs; None takes the one that the variable MKDM_JARS names, or else Spark's own resolver.

    Raises:
        ClusterError: the folder does not hold Delta's JARs.
    """
    folder = jars or os.environ.get(JARS_VARIABLE)
    if not folder:
        return {"spark.jars.packages": delta_package()}
    found = sorted(Path(folder).glob("*.jar"))
    for part in ("delta-spark", "delta-storage", "antlr4-runtime"):
        if not any(part in path.name for path in found):
            there = ", ".join(path.name for path in found) or "no JAR"
            raise ClusterError(f"{folder} has no *{part}*.jar, it has {there}: put there the JARs of {delta_package()}")
    return {"spark.jars": ",".join(str(path.resolve()) for path in found)}


def require_delta(spark: SparkSession) -> None:
    """Check that a session that we did not start can read and write Delta tables.

    Raises:
        ClusterError: it cannot; the text says which spark-submit flags are missing.
    """
    if is_connect(spark):  # its server answers for its JARs
        return
    from cluster.classic import has_class

    provider = spark.conf.get("spark.sql.catalog.spark_catalog", "") or ""
    flags = f"--packages {delta_package()} " + " ".join(f"--conf {key}={value}" for key, value in SESSION_CONF.items())
    if not has_class(spark, EXTENSION):
        raise ClusterError(f"Delta Lake's JARs are not on Spark's class path: pass spark-submit {flags}")
    if "delta" not in provider.lower() and "databricks" not in provider.lower():
        raise ClusterError(f"this Spark session was started without Delta Lake's catalog: pass spark-submit {flags}")
