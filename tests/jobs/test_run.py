"""`mkdm run` as a process: the size of the tasks that each step gets, and a run that goes on where one failed."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from query_logs import sample_log
from submitting import ROOT, submit, submit_command

from cluster.connect import is_connect
from cluster.session import gives_whole_executors, task_slots
from jobs import run as job
from jobs.engine import Warehouse
from jobs.run import RunConfig, run

SETTINGS = "build-pairs: {segments: all, passage-tokens: 64}\nscore: {precision: fp32}\nrank: {top-k: 3}\n"
STEPS = """
from cluster.session import ClusterConfig, StepSessions
sessions = StepSessions(ClusterConfig(), "steps")
for step, whole in (("build-pairs", False), ("score", True), ("rank", False)):
    context = sessions.start(step, whole).sparkContext
    assert sessions.start(step, whole).sparkContext is context
    print("STEP", step, context.applicationId, context.getConf().get("spark.task.cpus") or 1, flush=True)
"""


def event_log(folder: Path) -> dict[str, str]:
    """Settings that make each application of a process leave its event log in a folder."""
    folder.mkdir(exist_ok=True)
    conf = {"enabled": "true", "dir": folder.as_uri(), "compress": "false", "rolling.enabled": "false"}
    return {f"spark.eventLog.{key}": value for key, value in conf.items()}


def sizes(folder: Path) -> list[tuple[str, int]]:
    """Each application's step, in their order, and the cores that it gave a task."""
    told = []
    for log in folder.iterdir():
        events = [json.loads(line) for line in log.read_text().splitlines()]
        conf = next(one["Spark Properties"] for one in events if one["Event"] == "SparkListenerEnvironmentUpdate")
        start = next(one for one in events if one["Event"] == "SparkListenerApplicationStart")
        told.append((start["Timestamp"], start["App Name"], int(conf.get("spark.task.cpus", 1))))
    return [(name.rpartition(": ")[2], cpus) for _, name, cpus in sorted(told)]


@pytest.fixture
def flags(spark, tmp_path, student_folder) -> list[str]:
    """Those of mkdm run over a warehouse whose pairs are built: scoring and ranking are left."""
    warehouse = Warehouse(spark, str(tmp_path / "warehouse"))
    sample_log().write(spark, warehouse)
    settings = tmp_path / "settings.yaml"
    settings.write_text(SETTINGS)
    build, *_ = job._configs(RunConfig(student_folder, warehouse.root, str(settings)))
    job.run_build(spark, build)
    return ["--model", student_folder, "--warehouse", warehouse.root, "--settings", str(settings)]


@pytest.mark.slow
def test_each_step_gets_tasks_of_its_size(spark, tmp_path, flags):
    """One command: a task a core to build and rank, one task with all cores to score."""
    conf = tmp_path / "conf"
    conf.mkdir()
    lines = event_log(tmp_path / "events") | {"spark.ui.enabled": "false"}
    (conf / "spark-defaults.conf").write_text("".join(f"{key} {value}\n" for key, value in lines.items()))
    command = [sys.executable, "-m", "jobs", "run", *flags, "--executor-cores", "2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "SPARK_CONF_DIR": str(conf)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "is complete since" in done.stderr, "the build"
    assert sizes(tmp_path / "events") == [("build-pairs", 1), ("score", 2), ("rank", 1)]
    ranked = Warehouse(spark, flags[3]).table("ranked_passages").read()
    assert ranked.where("rank = 1").count() > 0


@pytest.mark.slow
def test_a_submitted_run_goes_on_with_the_step_that_failed(spark, tmp_path, flags):
    warehouse = Warehouse(spark, flags[3])
    warehouse.table("ranked_passages").overwrite(spark.range(1))  # which rank refuses

    def run_logged(name: str) -> subprocess.CompletedProcess[str]:
        given = [part for key, value in event_log(tmp_path / name).items() for part in ("--conf", f"{key}={value}")]
        return submit(
            [*submit_command("local", None, "--master", "local[2,4]", *given), "jobs/run.py", *flags], "local"
        )

    failed = run_logged("first")
    assert failed.returncode == 2, failed.stdout + failed.stderr
    warehouse.table("ranked_passages").drop()
    done = run_logged("again")
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("first", "again"):
        assert sizes(tmp_path / name) == [("build-pairs", 1), ("score", 2), ("rank", 1)]
    assert warehouse.table("runs").read().where("job = 'score' AND state = 'complete' AND chunk IS NULL").count() == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "cpus", "applications"),
    [
        ([], ["1", "2", "1"], 3),
        (["spark.task.cpus=2"], ["2", "2", "2"], 1),  # as told
        (["spark.kubernetes.submitInDriver=true"], ["2", "2", "2"], 1),  # the driver is a pod
    ],
)
def test_a_session_is_changed_where_it_can_be(tmp_path, flags, cpus, applications):
    application = tmp_path / "application.py"
    application.write_text(STEPS)
    given = [flag for setting in flags for flag in ("--conf", setting)]
    done = submit([*submit_command("local", None, "--master", "local[2,4]", *given), str(application)], "local")
    told = [line.split()[2:] for line in done.stdout.splitlines() if line.startswith("STEP")]
    assert [one[1] for one in told] == cpus, done.stderr
    assert len({one[0] for one in told}) == applications


def test_a_session_that_is_given_stays_and_what_that_means_is_said(spark, monkeypatch, capsys):
    monkeypatch.setattr(job, "run_build", lambda given, _: given)
    for whole, words in (
        (True, "all cores of an executor: build-pairs and rank alone would have a task per core"),
        (False, "a part of an executor's cores: scoring alone would load one model per executor"),
    ):
        monkeypatch.setattr(job, "gives_whole_executors", lambda _, whole=whole: whole)
        assert next(run(spark, RunConfig(model="m"))) is spark
        assert words in capsys.readouterr().err
    monkeypatch.setattr(job, "gives_whole_executors", lambda _: None)
    assert next(run(spark, RunConfig(model="m"))) is spark
    if is_connect(spark):
        assert "cores that it does not tell" in capsys.readouterr().err
    else:
        assert capsys.readouterr().err == "", "executors of one core"


def test_whether_tasks_have_whole_executors_is_asked_of_the_session(spark):
    cores = int(re.match(r"local\[(\d+)", spark.conf.get("spark.master"))[1])
    assert gives_whole_executors(spark) is (None if cores == 1 else True)
    assert task_slots(spark) == 1


def test_a_session_that_tells_nothing_may_have_tasks_of_any_size(monkeypatch):
    monkeypatch.setattr("cluster.session.is_connect", lambda _: True)
    monkeypatch.setattr("cluster.session.setting", lambda spark, name: None)
    monkeypatch.setattr("cluster.session.default_parallelism", lambda _: 8)
    assert gives_whole_executors(object()) is None, "as serverless compute"
    assert task_slots(object()) == 8
