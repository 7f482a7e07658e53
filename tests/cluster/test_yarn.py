"""The YARN target on a real ResourceManager and NodeManager of Hadoop 3.4.1, on loopback, from Maven packages."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest
from pyspark.find_spark_home import _find_spark_home
from submitting import assert_taken, fake_nvidia_smi, said

HADOOP = (
    "org.apache.hadoop:hadoop-client-minicluster:3.4.1",  # the servers; the clients are among Spark's own JARs
    "org.bouncycastle:bcpkix-jdk18on:1.78.1",
    "org.bouncycastle:bcutil-jdk18on:1.78.1",
    "javax.xml.bind:jaxb-api:2.3.1",
    "javax.activation:activation:1.1.1",
)
SERVERS = ("resourcemanager.ResourceManager", "nodemanager.NodeManager")
START_SECONDS = 120.0


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def write_conf(folder: Path) -> str:
    """A HADOOP_CONF_DIR with one machine, all in `folder`; the address of the ResourceManager's REST API."""
    ports = [f"127.0.0.1:{port}" for port in free_ports(8)]
    names = ("address", "scheduler.address", "resource-tracker.address", "admin.address", "webapp.address")
    conf = {f"yarn.resourcemanager.{name}": port for name, port in zip(names, ports, strict=False)}
    names = ("address", "localizer.address", "webapp.address")
    conf |= {f"yarn.nodemanager.{name}": port for name, port in zip(names, ports[5:], strict=True)}
    conf |= {
        "yarn.nodemanager.local-dirs": str(folder / "local"),
        "yarn.nodemanager.log-dirs": str(folder / "logs"),
        "yarn.nodemanager.resource.memory-mb": "4096",
        "yarn.nodemanager.resource.cpu-vcores": "4",
        "yarn.nodemanager.vmem-check-enabled": "false",  # JVMs reserve far more than they use
        "yarn.nodemanager.disk-health-checker.enable": "false",
        "yarn.nodemanager.env-whitelist": "JAVA_HOME",
        "yarn.scheduler.minimum-allocation-mb": "128",
        "yarn.resource-types": "yarn.io/gpu",
        "yarn.nodemanager.resource-type.yarn.io/gpu": "1",  # counted, not isolated
    }
    queues = {"root.queues": "default", "root.default.capacity": "100", "maximum-am-resource-percent": "0.5"}
    calculator = "org.apache.hadoop.yarn.util.resource.DominantResourceCalculator"
    queues |= {"resource-calculator": calculator}
    files = {
        "yarn-site.xml": conf,
        "core-site.xml": {"fs.defaultFS": "file:///", "hadoop.tmp.dir": str(folder / "tmp")},
        "capacity-scheduler.xml": {f"yarn.scheduler.capacity.{key}": value for key, value in queues.items()},
    }
    for name, settings in files.items():
        rows = "".join(f"<property><name>{k}</name><value>{v}</value></property>" for k, v in settings.items())
        (folder / name).write_text(f"<configuration>{rows}</configuration>")
    return f"http://{conf['yarn.resourcemanager.webapp.address']}/ws/v1/cluster"


def of_rest(address: str) -> dict:
    with urllib.request.urlopen(address, timeout=5) as answer:
        return json.load(answer)


@pytest.fixture
def yarn(spark, tmp_path):
    """A HADOOP_CONF_DIR, and the REST API of the YARN that it leads to."""
    resolver = spark._jvm.org.apache.spark.util.DependencyUtils  # Spark's own, as with --packages
    none = spark._jvm.scala.Option.apply(None)
    jars = resolver.resolveMavenDependencies(False, None, ",".join(HADOOP), None, None, none)
    jars = [jars.apply(i).removeprefix("file:") for i in range(jars.size())]
    folder = tmp_path / "hadoop"
    folder.mkdir()
    rest = write_conf(folder)
    path = ":".join([str(folder), f"{_find_spark_home()}/jars/*", *jars])
    java = shutil.which("java", path=f"{os.environ.get('JAVA_HOME', '')}/bin:{os.environ['PATH']}")
    options = ["-Xmx400m", "-XX:TieredStopAtLevel=1", "--add-opens=java.base/java.lang=ALL-UNNAMED"]
    servers = []
    try:
        for server in SERVERS:
            command = [java, *options, "-cp", path, f"org.apache.hadoop.yarn.server.{server}"]
            with open(folder / f"{server}.log", "w") as log:
                servers.append(subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, start_new_session=True))
        end, nodes = time.monotonic() + START_SECONDS, None
        while not nodes:
            assert time.monotonic() < end, [log.read_text()[-3000:] for log in folder.glob("*.log")]
            time.sleep(0.5)
            with contextlib.suppress(OSError):
                nodes = of_rest(f"{rest}/nodes")["nodes"]
        yield folder, rest
    finally:
        for server in reversed(servers):  # the NodeManager first: it then ends its containers
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGTERM)
            server.wait(timeout=60)


@pytest.mark.slow
def test_an_executor_with_a_gpu_on_yarn(spark, tmp_path, yarn):
    folder, rest = yarn
    small = {
        "spark.executor.instances": "1",
        "spark.executor.cores": "2",
        "spark.executor.memory": "512m",
        "spark.executor.memoryOverhead": "700m",
        "spark.driver.memory": "1g",
        "spark.yarn.am.memory": "512m",
        "spark.yarn.jars": f"local:{_find_spark_home()}/jars/*",  # on each machine already, not uploaded
        "spark.executorEnv.PATH": fake_nvidia_smi(tmp_path / "bin", "GPU-aaaa-0"),
        "spark.yarn.stagingDir": str(tmp_path / "staging"),
        "spark.databricks.delta.snapshotPartitions": "1",  # fewer tasks
        "spark.sql.shuffle.partitions": "2",
    }
    flags = [flag for key, value in small.items() for flag in ("--conf", f"{key}={value}")]
    ask = ("task", str(tmp_path / "table"))
    answer = said(tmp_path, "yarn", "gpu", *flags, ask=ask, HADOOP_CONF_DIR=str(folder))
    assert_taken(answer["conf"], "yarn", "gpu", flags)
    assert answer["task"] == [2, ["GPU-aaaa-0"], "GPU-aaaa-0"], "all cores, and the GPU that gpus.sh told of there"
    assert answer["delta"] == 10
    assert answer["conf"]["spark.master"] == "yarn"
    assert answer["conf"]["spark.task.cpus"] == "2"
    succeeded = of_rest(f"{rest}/apps?finalStatus=SUCCEEDED&applicationTypes=SPARK")["apps"]
    assert len(succeeded) == 1
