"""What the conf files hold, and that spark-submit takes those of YARN and of one machine."""

import os

import pytest
from submitting import CLUSTER, assert_taken, properties, said

from cluster.delta import SESSION_CONF, delta_package
from cluster.session import ClusterConfig, _own_conf

TARGETS = {path.parent.name: properties(path) for path in CLUSTER.glob("*/spark-defaults.conf")}
CLUSTERS = sorted(set(TARGETS) - {"local"})


def test_there_is_a_conf_for_each_target():
    assert sorted(TARGETS) == ["kubernetes", "local", "standalone", "yarn"]
    assert {path.name for path in CLUSTER.iterdir() if path.is_dir()} - {"__pycache__"} == {
        *TARGETS,
        "databricks",
        "shapes",
    }


def test_spark_submit_takes_the_conf_of_yarn(tmp_path):
    """Here on the local master. For the other clusters, and for YARN itself, see the tests of the targets."""
    flags = ["--master", "local[2]", "--deploy-mode", "client"]
    conf = said(tmp_path, "yarn", "cpu", *flags)["conf"]
    assert_taken(conf, "yarn", "cpu", flags)
    assert conf["spark.jars.packages"] == delta_package()


@pytest.mark.slow
def test_local_conf_is_what_mkdm_sets_itself(spark, tmp_path):
    """A submitted job on one machine runs as `mkdm` does, and its one task gets all cores."""
    answer = said(tmp_path, "local", None, ask=("task", str(tmp_path / "table")))
    cores = os.cpu_count() or 1
    assert answer["delta"] == 10
    assert answer["task"] == [cores, None, None]
    own = _own_conf(ClusterConfig(), whole_executor=True) | {"spark.master": "local[*,4]"}
    by_hand = {"spark.sql.shuffle.partitions", "spark.sql.sources.parallelPartitionDiscovery.parallelism"}
    for key in own.keys() - by_hand:
        assert answer["conf"][key].endswith(own[key]), key
    assert TARGETS["local"].keys() - own.keys() == {"spark.jars.packages", "spark.sql.adaptive.enabled"}


def test_targets_agree_on_what_the_engine_needs():
    for target, conf in TARGETS.items():
        assert conf.items() >= SESSION_CONF.items(), target
        assert conf["spark.sql.adaptive.enabled"] == "true", target
        assert ("spark.jars.packages" in conf) == (target != "kubernetes"), target
        assert conf.get("spark.jars.packages", delta_package()) == delta_package()
    shared = ("spark.sql.", "spark.driver.extraJavaOptions", "spark.executor.extraJavaOptions")
    first, *others = [{k: v for k, v in TARGETS[name].items() if k.startswith(shared)} for name in CLUSTERS]
    assert all(other == first for other in others), "change one, change all"


@pytest.mark.parametrize("shape", ["cpu", "gpu"])
def test_shapes_leave_the_size_of_a_task_to_the_session(shape):
    conf = properties(CLUSTER / "shapes" / f"{shape}.conf")
    assert "spark.task.cpus" not in conf
    assert int(conf["spark.executor.cores"]) > 1
    assert {"spark.executor.memory", "spark.executor.memoryOverhead"} <= conf.keys()
    gpus = {conf.get("spark.executor.resource.gpu.amount"), conf.get("spark.task.resource.gpu.amount")}
    assert gpus == ({"1"} if shape == "gpu" else {None})
