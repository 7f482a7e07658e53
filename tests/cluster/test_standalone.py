"""The standalone target on a real master and worker on loopback, with a stand-in for nvidia-smi."""

import pytest
from loopback import LoopbackCluster
from submitting import CLUSTER, assert_taken, fake_nvidia_smi, said


@pytest.mark.slow
def test_a_task_gets_all_cores_and_one_gpu_of_the_worker(spark, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", fake_nvidia_smi(tmp_path / "bin", "GPU-aaaa-0", "GPU-bbbb-1"))
    monkeypatch.setenv("MKDM_WORKER_GPUS", "2")
    cluster = LoopbackCluster(tmp_path, workers=1)
    (cluster.folder / "spark-env.sh").write_text(f"source {CLUSTER / 'standalone' / 'spark-env.sh'}\n")
    small = ["spark.executor.memory=512m", "spark.driver.memory=512m", "spark.executor.cores=1"]
    small += ["spark.databricks.delta.snapshotPartitions=1", "spark.sql.shuffle.partitions=2"]  # fewer tasks
    flags = [flag for setting in small for flag in ("--conf", setting)]
    with cluster:
        answer = said(
            tmp_path, "standalone", "gpu", "--master", cluster.master, *flags, ask=("task", str(tmp_path / "table"))
        )
    assert_taken(answer["conf"], "standalone", "gpu", flags)
    cpus, addresses, visible = answer["task"]
    assert cpus == 1
    assert len(addresses) == 1
    assert addresses[0] in ("GPU-aaaa-0", "GPU-bbbb-1")
    assert visible == addresses[0], "the model sees that GPU alone"
    assert answer["conf"]["spark.task.cpus"] == "1"
    assert answer["delta"] == 10
