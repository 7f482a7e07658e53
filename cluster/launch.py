"""Starts Spark's JVM so that its failure is one clear line and its usual chatter stays off the terminal."""

import os
import re
import sys
from threading import Thread

from pyspark import SparkConf, SparkContext
from pyspark.errors import PySparkRuntimeError
from pyspark.java_gateway import launch_gateway

from cluster.delta import JARS_VARIABLE, delta_package
from cluster.errors import ClusterError

_CHATTER = re.compile(
    "incubator modules|default log4j profile|Setting default log level|To adjust logging level"
    "|NativeCodeLoader|Truncated the string representation|Picked up JAVA_TOOL_OPTIONS|loopback address"
    "|Broadcasting large task binary"
    "|lineage has been truncated and cannot be recomputed"  # of what Delta's MERGE kept for itself and gave up
    "|if you need to bind to another address|Service 'SparkUI' could not bind"
)
_UNRESOLVED = re.compile("unresolved dependency|download failed|UNRESOLVED DEPENDENCIES|Server access error")


class _StandardError:
    """Reads the JVM's stderr through a pipe: keeps it while Spark starts, then passes on what is not chatter."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.starting = True
        read_end, self.write_end = os.pipe()
        self._thread = Thread(target=self._read, args=(read_end,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Leave the pipe to the JVM alone."""
        os.close(self.write_end)

    def wait(self) -> None:
        """Wait until a JVM that has exited is read to its end."""
        self._thread.join(timeout=5)

    def _read(self, read_end: int) -> None:
        with open(read_end, errors="replace") as stream:
            for line in stream:
                if self.starting:
                    self.lines.append(line.strip())
                elif not _CHATTER.search(line):
                    sys.stderr.write(line)


def launch_jvm(conf: SparkConf) -> SparkContext:
    """Start a JVM and its SparkContext.

    Raises:
        ClusterError: the JVM does not start, most often because JARs cannot be resolved.
    """
    stderr = _StandardError()
    try:
        gateway = launch_gateway(conf, {"stderr": stderr.write_end})
    except PySparkRuntimeError as error:
        stderr.close()
        stderr.wait()
        raise ClusterError(_why(stderr.lines)) from error
    stderr.close()
    stderr.starting = False
    return SparkContext(conf=conf, gateway=gateway)


def _why(lines: list[str]) -> str:
    if any(_UNRESOLVED.search(line) for line in lines):
        return (
            f"Delta Lake's JARs ({delta_package()}) could not be resolved from a Maven repository: mend the network or "
            f"proxy, or put the JARs in a folder and pass --jars DIR or set {JARS_VARIABLE}"
        )
    told = [line for line in lines if "Exception" in line or "Error" in line or "error" in line]
    last = (told or [line for line in lines if line] or ["it printed nothing"])[0]
    return f"Spark's JVM did not start: {last}"
