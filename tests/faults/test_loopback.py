"""`mkdm score` on a real cluster of two executors, whole and with its parts killed: the rows are the same."""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import psutil
import pytest
from loopback import LoopbackCluster
from tiny_models import SAMPLE

from mkdm.scoring.scorer import Scorer
from tests.faults.driver import WAIT_SECONDS, Driver, commits, wait_for_commits
from tests.faults.outcome import Outcome, outcome

CHUNKS = 3
SETTINGS = {"model": str(SAMPLE / "student"), "precision": "fp32", "chunks": CHUNKS, "rows_per_task": 20}
"""A model slow enough for a task to be hit in its middle; about five tasks a chunk."""
SHAPE = {"executor_cores": 1, "executor_memory": "1g", "driver_memory": "1g"}
QUICK = {
    "spark.executor.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
    "spark.databricks.delta.snapshotPartitions": "1",
    "spark.sql.shuffle.partitions": "2",
}
SPECULATION = {
    "spark.speculation": "true",
    "spark.speculation.multiplier": "1",
    "spark.speculation.quantile": "0.1",
    "spark.speculation.minTaskRuntime": "1s",  # leaves the tasks alone that only seem slow
    "spark.speculation.task.duration.threshold": "5s",  # for stages of one task
}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[LoopbackCluster]:
    """Two workers, of one core each."""
    with LoopbackCluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running


@pytest.fixture
def start(cluster, warehouse, start_driver) -> Callable[..., Driver]:
    """Starts a driver that has the cluster score the pairs of the test's warehouse."""
    flags = {"master": cluster.master, "warehouse": warehouse.root, **SHAPE, **SETTINGS}
    return lambda conf: start_driver(flags, QUICK | conf)


@pytest.fixture(scope="module")
def undisturbed() -> dict[str, Outcome]:
    """What the cluster wrote when nothing happened to it, once that has run."""
    return {}


@pytest.mark.slow
def test_two_executors_load_the_model_twice(warehouse, start, undisturbed, sample_pairs, texts):
    told = start({}).wait()
    assert f"chunks            {CHUNKS}\nscored            300\nrejected          0\n" in told
    assert "model loads       2\n" in told
    rows = undisturbed["cluster"] = outcome(warehouse)

    scorer = Scorer.load(SETTINGS["model"], precision=SETTINGS["precision"])
    keys = [(pair["query_id"], pair["passage_id"]) for pair in sample_pairs]
    expected = dict(zip(keys, scorer.score_window(*texts).scores.tolist(), strict=True))
    # not to the last bit, which depends on a batch's other rows
    assert {row[:2]: row[2] for row in rows.scores} == pytest.approx(expected, abs=1e-5)


@pytest.mark.slow
def test_killed_and_hanging_parts_change_no_row(cluster, warehouse, start, undisturbed):
    if not undisturbed:
        pytest.skip("compares with the run of the test before")
    done = commits(warehouse.root, "runs") + 1  # started
    driver = start(SPECULATION)
    hang_python_worker(cluster)
    wait_for_commits(driver, warehouse.root, done + 1, "runs")
    kill_python_worker(cluster)  # whatever is hit in mid-task is to be done again, so that there is more to hit
    kill_executor(cluster)
    kill_worker_daemon(cluster)
    assert driver.running
    told = driver.wait()
    assert f"chunks            {CHUNKS}\nscored            300\nrejected          0\n" in told
    for loss in ("Python worker exited unexpectedly", "exited with code 137", "worker lost", "TaskKilled"):
        assert loss in told
    assert outcome(warehouse) == undisturbed["cluster"]


def kill_python_worker(cluster: LoopbackCluster) -> None:
    busy_python_worker(cluster).kill()


def kill_executor(cluster: LoopbackCluster) -> None:
    executor_of(busy_python_worker(cluster)).kill()


def hang_python_worker(cluster: LoopbackCluster) -> None:
    """Its task is for a speculative copy, which Spark runs on a host where the task was not tried before."""
    busy_python_worker(cluster).suspend()


def kill_worker_daemon(cluster: LoopbackCluster) -> None:
    """With it goes its executor, which has a task that would not end before; then it comes back."""
    hanging = busy_python_worker(cluster)
    hanging.suspend()
    host = executor_of(hanging).cmdline()
    i = int(host[host.index("--hostname") + 1].rpartition(".")[2]) - 1
    cluster.kill_worker(i)
    cluster.start_worker(i)


def executor_of(python_worker: psutil.Process) -> psutil.Process:
    """The JVM whose tasks it runs: a daemon of the JVM has forked it."""
    return python_worker.parent().parent()


def busy_python_worker(cluster: LoopbackCluster) -> psutil.Process:
    """A Python worker in the middle of a task: it takes CPU time, as one that waits for a task does not.

    One whose executor was killed just now may still take some, but has no JVM above it any more.
    """
    used: dict[int, float] = {}
    end = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < end:
        for worker in cluster.python_workers():
            with suppress(psutil.Error):
                now = sum(worker.cpu_times()[:2])
                busy = now - used.setdefault(worker.pid, now) >= 0.05
                if busy and worker.parent() and "--hostname" in executor_of(worker).cmdline():
                    return worker
    raise AssertionError("no Python worker does anything")
