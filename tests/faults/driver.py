"""An `mkdm` command as a process of its own, which a test can kill alone or together with its JVM."""

import contextlib
import glob
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlparse

import psutil
from pyspark.sql import SparkSession

WAIT_SECONDS = 300.0
QUICK = {"spark.ui.enabled": "false", "spark.sql.codegen.factoryMode": "NO_CODEGEN"}  # tables here are tiny
QUICK["spark.sql.codegen.wholeStage"] = "false"
JVM = "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=240m -XX:+UseSerialGC"


class Driver:
    """A driver process in a session (setsid) of its own, by which all that it starts is found, also after its death.

    Python's part and the JVM form one process group; Spark's Python workers, if any, make another in the same session.
    """

    def __init__(
        self, spark: SparkSession, folder: Path, flags: dict, conf: dict[str, str] | None = None, job: str = "score"
    ) -> None:
        """Start `mkdm JOB --FLAGS`.

        Args:
            spark: any session, for its JARs: no network is needed.
            folder: takes the output, `log.txt`, and all else that the driver leaves lying about.
            conf: Spark's settings beside those of `cluster/`.
        """
        jars, settings = folder / "jars", folder / "conf"
        for new in (jars, settings):
            new.mkdir(parents=True)
        for jar in spark.sparkContext.getConf().get("spark.jars").split(","):
            (jars / Path(jar).name).symlink_to(urlparse(jar).path)
        lines = [f"{name} {value}\n" for name, value in (QUICK | (conf or {})).items()]
        (settings / "spark-defaults.conf").write_text("".join(lines))
        env = os.environ | {
            "MKDM_JARS": str(jars),
            "SPARK_CONF_DIR": str(settings),
            "SPARK_LOCAL_IP": "127.0.0.1",
            "SPARK_LOCAL_DIRS": str(folder),
            "TMPDIR": str(folder),
            "JAVA_TOOL_OPTIONS": f"{JVM} -Djava.io.tmpdir={folder}",
            "PYTHONUNBUFFERED": "1",
        }
        env.pop("PYSPARK_GATEWAY_PORT", None)
        command = [sys.executable, "-m", "jobs", job]
        command += [f"--{name.replace('_', '-')}={value}" for name, value in flags.items()]
        self.log = folder / "log.txt"
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                command, cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    @property
    def running(self) -> bool:
        """Whether its Python process lives."""
        return self._process.poll() is None

    def told(self) -> str:
        """What it has printed so far."""
        return self.log.read_text(errors="replace")

    def wait(self) -> str:
        """Wait until it has done its work, and return what it printed."""
        code = self._process.wait(WAIT_SECONDS)
        assert code == 0, self.told()[-3000:]
        return self.told()

    def kill(self, with_jvm: bool) -> None:
        """Kill it (-9) in mid-run: Python alone, upon which the JVM notices and exits, or the JVM at the same time."""
        if with_jvm:
            os.killpg(self._process.pid, signal.SIGKILL)
        else:
            self._process.kill()
        assert self._process.wait() == -signal.SIGKILL, f"it ended before: {self.told()[-3000:]}"

    def end(self) -> None:
        """Kill (-9) whatever is left of its session."""
        while left := [process for process in psutil.process_iter() if _session(process.pid) == self._process.pid]:
            for process in left:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            self._process.poll()  # takes the dead from the process table
            psutil.wait_procs(left, timeout=5)


def _session(pid: int) -> int | None:
    with contextlib.suppress(OSError):
        return os.getsid(pid)
    return None


def commits(warehouse: Path | str, table: str = "*") -> int:
    """How many commits the tables of a warehouse have, its input left out; staging tables count while they exist."""
    found = glob.glob(f"{table}/_delta_log/*.json", root_dir=warehouse)
    return sum(not path.startswith("pairs/") for path in found)


def wait_for_commits(driver: Driver, warehouse: Path | str, count: int, table: str = "*") -> None:
    """Wait until there are that many. The driver must be running then, too."""
    end = time.monotonic() + WAIT_SECONDS
    while driver.running and commits(warehouse, table) < count:
        assert time.monotonic() < end, f"{commits(warehouse, table)} of {count} commits: {driver.told()[-3000:]}"
        time.sleep(0.02)
    assert driver.running, f"it ended before commit {count}: {driver.told()[-3000:]}"
