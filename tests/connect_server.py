"""A real Spark Connect server on 127.0.0.1, as its own process, with Delta Lake but without its Connect plugin."""

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import loopback
from local_http import free_port
from pyspark.find_spark_home import _find_spark_home
from pyspark.sql import SparkSession

from cluster.delta import SESSION_CONF, jar_conf
from cluster.java import class_options

HOST = "127.0.0.1"
START_SECONDS = 120.0
MAIN = "org.apache.spark.sql.connect.service.SparkConnectServer"
MODE = "SPARK_CONNECT_MODE_ENABLED"
"""By which PySpark's functions know which of the two kinds of session they are for."""
ROOT = Path(__file__).parent.parent


@contextlib.contextmanager
def connect_server(folder: Path, conf: dict[str, str], cores: int = 2) -> Iterator[str]:
    """The address of a server that ends with the block, or with this process.

    Args:
        folder: under which it gets a new folder to work in.
        conf: settings of Spark's.

    Raises:
        RuntimeError: it did not come up; with the end of its log.
    """
    folder = Path(tempfile.mkdtemp(prefix="connect-", dir=folder.resolve()))
    port = free_port()
    settings = {
        **SESSION_CONF,
        **jar_conf(None),
        "spark.master": f"local[{cores},4]",
        "spark.driver.memory": "2g",
        "spark.driver.extraJavaOptions": f"-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=240m {class_options()}",
        "spark.task.cpus": str(cores),
        "spark.databricks.delta.snapshotPartitions": "1",
        "spark.sql.sources.parallelPartitionDiscovery.parallelism": str(cores),  # VACUUM would start 10,000 tasks
        "spark.connect.grpc.binding.address": HOST,
        "spark.connect.grpc.binding.port": str(port),
        "spark.connect.progress.reportInterval": "200ms",
        **conf,
    }
    home = _find_spark_home()
    flags = [part for key, value in settings.items() for part in ("--conf", f"{key}={value}")]
    here = {
        "SPARK_HOME": home,
        "SPARK_CONF_DIR": str(folder),  # none of the machine's own settings
        "SPARK_LOCAL_IP": HOST,
        "PYSPARK_PYTHON": sys.executable,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
    }
    environment = {key: value for key, value in os.environ.items() if key not in ("SPARK_REMOTE", MODE)} | here
    guard = subprocess.Popen([sys.executable, loopback.__file__, str(folder)], stdin=subprocess.PIPE)
    try:
        with open(folder / "server.log", "ab") as log:
            command = [f"{home}/bin/spark-submit", "--class", MAIN, *flags, "spark-internal"]
            server = subprocess.Popen(
                command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        _wait(server, port, folder)
        yield f"sc://{HOST}:{port}"
    finally:
        guard.communicate()  # its input ends, and it ends the server and its Python workers


@contextlib.contextmanager
def connect_session(url: str) -> Iterator[SparkSession]:
    """A session of that server; while it is there, PySpark's functions are those of Spark Connect."""
    from pyspark.sql.connect.session import SparkSession as RemoteSession

    before = os.environ.get(MODE)
    os.environ[MODE] = "1"
    session = RemoteSession.builder.remote(url).create()
    try:
        yield session
    finally:
        session.stop()
        os.environ.pop(MODE) if before is None else os.environ.update({MODE: before})


def _wait(server: "subprocess.Popen[bytes]", port: int, folder: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and server.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=1):
            return
        time.sleep(0.2)
    tail = (folder / "server.log").read_text(errors="replace")[-3000:]
    raise RuntimeError(f"The Spark Connect server did not come up:\n{tail}")
