import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from cluster.delta import SESSION_CONF, delta_package, jar_conf
from cluster.errors import ClusterError
from cluster.session import task_slots
from jobs.engine import Table

ROOT = Path(__file__).parent.parent.parent
JARS = ("io.delta_delta-spark_2.13-4.0.1.jar", "delta-storage-4.0.1.jar", "antlr4-runtime-4.13.1.jar")


def test_jars_resolve_through_spark_by_default(monkeypatch):
    monkeypatch.delenv("MKDM_JARS", raising=False)
    assert jar_conf(None) == {"spark.jars.packages": delta_package()}


def test_jars_are_those_of_the_installed_delta_and_spark():
    """Delta 4.0 is made for one Spark; later ones are for several, and their names tell which."""
    spark = ".".join(version("pyspark").split(".")[:2])
    names = {f"io.delta:delta-spark_{part}2.13:{version('delta-spark')}" for part in ("", f"{spark}_")}
    assert delta_package() in names


def test_jars_of_a_folder(tmp_path, monkeypatch):
    for name in JARS:
        (tmp_path / name).touch()
    expected = {"spark.jars": ",".join(sorted(str(tmp_path / name) for name in JARS))}
    assert jar_conf(str(tmp_path)) == expected
    monkeypatch.setenv("MKDM_JARS", str(tmp_path))
    assert jar_conf(None) == expected


def test_folder_without_the_jars(tmp_path):
    (tmp_path / JARS[0]).touch()
    with pytest.raises(ClusterError, match=r"has no \*delta-storage\*\.jar, it has io\.delta_delta-spark"):
        jar_conf(str(tmp_path))


def score(tmp_path, **environment: str) -> subprocess.CompletedProcess:
    """`mkdm score` in a process of its own, which is where a JVM can fail to start."""
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    command = [sys.executable, "-m", "jobs", "score", "--model", "m", "--warehouse", str(tmp_path / "w")]
    return subprocess.run(
        command, env={"PATH": path, "HOME": str(tmp_path), **environment}, capture_output=True, text=True, check=False
    )


def test_jars_that_cannot_be_resolved_give_one_line(tmp_path):
    unreachable = " ".join(f"-D{kind}.proxyHost=127.0.0.1 -D{kind}.proxyPort=9" for kind in ("http", "https"))
    done = score(tmp_path, JAVA_TOOL_OPTIONS=f"-Duser.home={tmp_path} {unreachable}")
    assert done.returncode == 2
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith(f"error: Delta Lake's JARs ({delta_package()}) could not be resolved")
    assert "--jars DIR or set MKDM_JARS" in lines[0]


def test_unfit_jars_folder_gives_one_line(tmp_path):
    done = score(tmp_path, MKDM_JARS=str(tmp_path))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {tmp_path} has no *delta-spark*.jar, it has no JAR")


def test_one_task_at_a_time_fills_the_executor(spark):
    conf = spark.sparkContext.getConf()
    assert conf.get("spark.master") == f"local[{conf.get('spark.task.cpus')},4]"
    assert task_slots(spark) == 1


@pytest.mark.slow
def test_spark_submit_equals_mkdm(spark, student_folder, sample_pairs, tmp_path):
    """Through the JARs that the session here has resolved, which are the same for both commands."""
    jars = spark.sparkContext.getConf().get("spark.jars")
    spark.createDataFrame(sample_pairs[:10]).toPandas().to_parquet(tmp_path / "mine.parquet")
    flags = ["--model", student_folder, "--pairs", str(tmp_path / "mine.parquet"), "--warehouse", str(tmp_path / "w")]
    conf = [f"--conf={key}={value}" for key, value in SESSION_CONF.items()]
    quick = [
        "--master",
        "local[2]",
        "--driver-java-options",
        "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=240m",
        "--conf=spark.ui.enabled=false",
        "--conf=spark.databricks.delta.snapshotPartitions=1",
        "--conf=spark.sql.shuffle.partitions=2",
        "--conf=spark.sql.codegen.factoryMode=NO_CODEGEN",
        "--conf=spark.sql.codegen.wholeStage=false",
    ]
    submit = [str(Path(sys.executable).parent / "spark-submit"), *quick, "--jars", jars, *conf]
    environment = {**os.environ, "PYSPARK_PYTHON": sys.executable}
    command = [*submit, "jobs/score.py", *flags]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "scored            10\n" in done.stdout
    assert "model loads       1\n" in done.stdout
    assert Table(spark, str(tmp_path / "w" / "scores")).read().count() == 10

    without = subprocess.run(  # spark-submit passes the script's stderr on to stdout
        [submit[0], *quick, "jobs/score.py", *flags],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert without.returncode == 2
    assert "error: Delta Lake's JARs are not on Spark's class path: pass spark-submit --packages" in without.stdout
