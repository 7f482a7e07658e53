import subprocess
import sys
from pathlib import Path

import pytest

from cluster.delta import jar_conf
from cluster.errors import ClusterError
from cluster.session import task_slots

JARS = ("io.delta_delta-spark_2.13-4.0.1.jar", "delta-storage-4.0.1.jar", "antlr4-runtime-4.13.1.jar")


def test_jars_resolve_through_spark_by_default(monkeypatch):
    monkeypatch.delenv("MKDM_JARS", raising=False)
    assert jar_conf(None) == {"spark.jars.packages": "io.delta:delta-spark_2.13:4.0.1"}


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
    command = [sys.executable, "-m", "jobs.cli", "score", "--model", "m", "--warehouse", str(tmp_path / "w")]
    return subprocess.run(
        command, env={"PATH": path, "HOME": str(tmp_path), **environment}, capture_output=True, text=True, check=False
    )


def test_jars_that_cannot_be_resolved_give_one_line(tmp_path):
    unreachable = " ".join(f"-D{kind}.proxyHost=127.0.0.1 -D{kind}.proxyPort=9" for kind in ("http", "https"))
    done = score(tmp_path, JAVA_TOOL_OPTIONS=f"-Duser.home={tmp_path} {unreachable}")
    assert done.returncode == 2
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: Delta Lake's JARs (io.delta:delta-spark_2.13:4.0.1) could not be resolved")
    assert "--jars DIR or set MKDM_JARS" in lines[0]


def test_unfit_jars_folder_gives_one_line(tmp_path):
    done = score(tmp_path, MKDM_JARS=str(tmp_path))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {tmp_path} has no *delta-spark*.jar, it has no JAR")


def test_one_task_at_a_time_fills_the_executor(spark):
    conf = spark.sparkContext.getConf()
    assert conf.get("spark.master") == f"local[{conf.get('spark.task.cpus')}]"
    assert task_slots(spark) == 1
