"""spark-submit with a target's conf in a process of its own, and what a tiny application there says of its session."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
CLUSTER = ROOT / "cluster"
APPLICATION = """
import json, os, sys, time, urllib.request
from pyspark import TaskContext
from cluster.session import ClusterConfig, start_session

def resources(rows):
    from udfs.scoring import show_own_gpu
    show_own_gpu(TaskContext.get())
    gpu = TaskContext.get().resources().get("gpu")
    yield TaskContext.get().cpus(), gpu and gpu.addresses, os.environ.get("CUDA_VISIBLE_DEVICES")

spark = start_session(ClusterConfig(), "conf", whole_executor=True)
said = {"conf": dict(spark.sparkContext.getConf().getAll())}
if "task" in sys.argv:
    said["task"] = spark.sparkContext.parallelize([0], 1).mapPartitions(resources).first()
    spark.range(10).write.format("delta").save(sys.argv[-1])
    said["delta"] = spark.read.format("delta").load(sys.argv[-1]).count()
if "wait" in sys.argv:
    while not json.load(urllib.request.urlopen(sys.argv[-1])):
        time.sleep(0.2)
print("SAID " + json.dumps(said))
"""


def properties(*files: Path) -> dict[str, str]:
    """The keys and values of properties files; later ones win."""
    lines = [line.strip() for file in files for line in file.read_text().splitlines()]
    return dict(line.split(None, 1) for line in lines if line and not line.startswith("#"))


def submit_command(target: str, shape: str | None, *flags: str) -> list[str]:
    """spark-submit as the head of the target's spark-defaults.conf says, and flags over it."""
    shaped = ["--load-spark-defaults", "--properties-file", f"cluster/shapes/{shape}.conf"] if shape else []
    return [str(Path(sys.executable).parent / "spark-submit"), *shaped, "--conf", "spark.ui.enabled=false", *flags]


def submit(command: list[str], target: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run spark-submit in the repository's root with the target's folder as SPARK_CONF_DIR."""
    environment = {  # the JVM's options: starts quicker
        "JAVA_TOOL_OPTIONS": "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=240m -XX:+UseSerialGC",
        "PYSPARK_PYTHON": sys.executable,
        "PYTHONPATH": str(ROOT),
        "SPARK_CONF_DIR": str(CLUSTER / target),
        **environment,
    }
    everything = {**os.environ, **environment}
    return subprocess.run(command, cwd=ROOT, env=everything, capture_output=True, text=True, check=False, timeout=300)


def said(
    tmp_path: Path, target: str, shape: str | None, *flags: str, ask: tuple[str, ...] = (), **environment: str
) -> dict[str, Any]:
    """What the application says that was submitted so.

    Args:
        ask: `task` and a folder: what a task got, and a Delta table there; `wait` and a URL: until it has something.
    """
    application = tmp_path / "application.py"
    application.write_text(APPLICATION)
    done = submit([*submit_command(target, shape, *flags), str(application), *ask], target, **environment)
    lines = [line for line in done.stdout.splitlines() if line.startswith("SAID ")]
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    assert lines, done.stdout[-2000:] + done.stderr[-6000:]
    return dict(json.loads(lines[0].removeprefix("SAID ")))


def assert_taken(conf: dict[str, str], target: str, shape: str, flags: list[str]) -> None:
    """The session's conf is that of the target, with the shape's over it, and the flags' over both."""
    files = properties(CLUSTER / target / "spark-defaults.conf", CLUSTER / "shapes" / f"{shape}.conf")
    by_flag = {flag.partition("=")[0] for flag in flags}
    # To its JVM options Spark adds its own; spark-submit keeps files to be shipped for YARN, as URIs.
    by_spark = {"spark.master", "spark.submit.deployMode", "spark.jars.packages", "spark.yarn.dist.files"}
    for key in files.keys() - by_flag - by_spark:
        assert conf[key] == files[key] or (key.endswith("JavaOptions") and conf[key].endswith(files[key])), key


def fake_nvidia_smi(folder: Path, *uuids: str) -> str:
    """A PATH on which nvidia-smi tells of GPUs that are not there."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "nvidia-smi").write_text("#!/bin/sh\nprintf '%s\\n' " + " ".join(uuids) + "\n")
    (folder / "nvidia-smi").chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"
