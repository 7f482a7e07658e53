"""A real Spark standalone cluster on 127.0.0.1, a master and workers as processes, whose parts a test can kill."""

import contextlib
import http.client
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

import psutil
from local_http import free_port
from pyspark.find_spark_home import _find_spark_home

HOST = "127.0.0.1"
START_SECONDS = 60.0


class LoopbackCluster:
    """One master and some workers of one core each, with logs and all else in a new folder under `folder`.

    On Linux, each worker has a loopback address of its own: Spark runs no speculative copy on the host of the first.
    All its processes (daemons, executors, Python workers) run in that new folder, by which they are found, also when
    their parent was killed. A guard process ends them if this one ends without `stop()`, however that comes.
    With `path`, daemons and executors see that PATH and JAVA_HOME, and nothing else of this process's environment.
    """

    def __init__(self, folder: Path, workers: int = 2, path: str | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = Path(tempfile.mkdtemp(prefix="spark-", dir=folder.resolve()))
        port, self._ui_port = free_port(), free_port()
        self.master = f"spark://{HOST}:{port}"
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        self._guard: subprocess.Popen[bytes] | None = None
        self._workers = workers
        self._path = path

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def start(self) -> None:
        """Starts the daemons, and waits until all workers are registered.

        Raises:
            RuntimeError: a daemon did not come up; with the end of its log.
        """
        guard = [sys.executable, __file__, str(self.folder)]  # its input ends when this process does
        self._guard = subprocess.Popen(guard, stdin=subprocess.PIPE, start_new_session=True)
        try:
            ports = ["--port", self.master.rpartition(":")[2], "--webui-port", str(self._ui_port)]
            self._launch("master", "org.apache.spark.deploy.master.Master", *ports)
            self._wait("master", lambda: self._alive_ports() is not None)  # a worker too early would retry only late
            ports_of = [self._launch_worker(i) for i in range(self._workers)]  # side by side
            for i, port in enumerate(ports_of):
                self._wait_for_worker(i, port)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Kills (-9) all that belongs to the cluster."""
        _kill_under(self.folder)
        for daemon in self._daemons.values():
            daemon.wait()
        self._daemons.clear()
        if self._guard is not None:
            self._guard.communicate()
            self._guard = None

    def executors(self) -> list[psutil.Process]:
        """The live executor JVMs."""
        return _running_under(self.folder, "org.apache.spark.executor.CoarseGrainedExecutorBackend")

    def python_workers(self) -> list[psutil.Process]:
        """The live Python processes that run tasks, or wait for the next: what the `pyspark.daemon`s have forked."""
        pythons = _running_under(self.folder, "pyspark.daemon")  # forks keep the command line
        pids = {process.pid for process in pythons}
        return [process for process in pythons if process.info["ppid"] in pids]

    def kill_worker(self, i: int) -> None:
        """Kills (-9) the daemon of worker `i`. Its executor, as seen, exits by itself within a second.

        Spark then runs the lost task elsewhere, and counts no failure for it (as it does for a killed executor).
        """
        self._daemons[f"worker-{i}"].kill()
        self._daemons[f"worker-{i}"].wait()

    def start_worker(self, i: int) -> None:
        """Brings a killed worker `i` back, and waits until it is registered; a running application gets it at once.

        Raises:
            RuntimeError: it did not come up; with the end of its log.
        """
        self._wait_for_worker(i, self._launch_worker(i))

    def _launch_worker(self, i: int) -> int:
        port, host = free_port(), f"127.0.0.{i + 1}" if sys.platform == "linux" else HOST
        size = ["--cores", "1", "--memory", "2g", "--work-dir", str(self.folder / f"worker-{i}")]
        ports = ["--port", str(port), "--webui-port", "0"]
        self._launch(f"worker-{i}", "org.apache.spark.deploy.worker.Worker", *ports, *size, self.master, host=host)
        return port

    def _wait_for_worker(self, i: int, port: int) -> None:
        self._wait(f"worker-{i}", lambda: port in self._alive_ports())

    def _launch(self, name: str, main: str, *arguments: str, host: str = HOST) -> None:
        home = _find_spark_home()
        own = os.environ | {"PYSPARK_PYTHON": sys.executable}
        if self._path is not None:
            own = {"PATH": self._path, "HOME": str(self.folder)}
            own |= {"JAVA_HOME": os.environ["JAVA_HOME"]} if "JAVA_HOME" in os.environ else {}
        env = own | {
            "SPARK_HOME": home,
            "SPARK_CONF_DIR": str(self.folder),  # none of the machine's own settings
            "SPARK_LOCAL_DIRS": str(self.folder / "local"),
            "SPARK_LOCAL_IP": host,
            "SPARK_PUBLIC_DNS": host,
            "SPARK_DAEMON_MEMORY": "256m",
            "SPARK_DAEMON_JAVA_OPTS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
        }
        command = [f"{home}/bin/spark-class", main, "--host", host, *arguments]  # which becomes the JVM
        with open(self.folder / f"{name}.log", "ab") as log:
            self._daemons[name] = subprocess.Popen(
                command, cwd=self.folder, env=env, stdout=log, stderr=log, start_new_session=True
            )

    def _alive_ports(self) -> set[int]:
        """Ports of the workers that the master holds for alive."""
        with contextlib.closing(http.client.HTTPConnection(HOST, self._ui_port, timeout=5)) as connection:
            connection.request("GET", "/json/")
            state = json.loads(connection.getresponse().read())
        return {worker["port"] for worker in state["workers"] if worker["state"] == "ALIVE"}

    def _wait(self, name: str, ready: Callable[[], bool]) -> None:
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end and self._daemons[name].poll() is None:
            with contextlib.suppress(OSError, http.client.HTTPException, ValueError):  # no answer yet
                if ready():
                    return
            time.sleep(0.1)
        tail = (self.folder / f"{name}.log").read_text(errors="replace")[-3000:]
        raise RuntimeError(f"The cluster's {name} did not come up:\n{tail}")


def _running_under(folder: Path, word: str = "") -> list[psutil.Process]:
    """The live processes whose working directory is `folder` or below, and whose command line has `word`."""
    return [
        process
        for process in psutil.process_iter(["ppid", "cwd", "cmdline"])  # None where it may not be read
        if Path(process.info["cwd"] or "").is_relative_to(folder) and word in " ".join(process.info["cmdline"] or [])
    ]


def _kill_under(folder: Path) -> None:
    while found := _running_under(folder):
        for process in found:  # some may start others until they are dead
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(found, timeout=5)


if __name__ == "__main__":  # the guard
    sys.stdin.buffer.read()
    _kill_under(Path(sys.argv[1]))
