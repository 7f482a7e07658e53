"""Finds the Java that Spark will use and says in one line what is wrong with it. Run as `python -m cluster.java`.

Only the standard library is needed, so that `make` can ask before it installs anything.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from zlib import crc32

from cluster.errors import ClusterError

SUPPORTED = (17, 21)
DUMP_VARIABLE = "MKDM_DUMP_CLASSES"
"""Names the file that a JVM is to write its classes to, when it ends; see `cluster.class_archive`."""
_QUIET = "-Xlog:cds=off -Xlog:cds+dynamic=off"
"""Or else a JVM that an archive does not suit says so on standard output, which is a job's."""
_INSTALL = "install OpenJDK 17 (Debian: apt-get install openjdk-17-jdk-headless) or point JAVA_HOME at one"


def check_java() -> int:
    """Check the Java of JAVA_HOME, or else of PATH, which is where Spark looks for it.

    Returns:
        Its major version.

    Raises:
        ClusterError: there is none, its version is not one that Spark 4 runs on, or it lacks a module Spark asks for.
    """
    java = java_path()
    # Spark starts its JVM with this module; a JRE that was cut down with jlink often lacks it.
    probe = subprocess.run(
        [java, "--add-modules", "jdk.incubator.vector", "-version"], capture_output=True, text=True, check=False
    )
    report = probe.stdout + probe.stderr
    version = re.search(r'version "(?:1\.)?(\d+)', report)
    if version is None:
        version = re.search(r'version "(?:1\.)?(\d+)', _plain_version(java))
    major = int(version.group(1)) if version else None
    if major not in SUPPORTED:
        found = "of unknown version" if major is None else str(major)
        raise ClusterError(f"Java {found} at {java} is unfit, Spark 4 needs 17 or 21: {_INSTALL}")
    if probe.returncode != 0:
        raise ClusterError(f"Java {major} at {java} lacks the module jdk.incubator.vector: {_INSTALL}")
    return major


def java_path() -> str:
    """The Java of JAVA_HOME, or else of PATH.

    Raises:
        ClusterError: there is none.
    """
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home, "bin", "java")) if home else shutil.which("java")
    if java is None or not os.access(java, os.X_OK):
        where = f"in JAVA_HOME ({home})" if home else "on PATH"
        raise ClusterError(f"no Java {where}: {_INSTALL}")
    return java


def archive_path() -> Path:
    """Where the archive of classes for this Java and this Spark is, or would be: in the Python environment.

    Raises:
        ClusterError: there is no Java.
    """
    import pyspark  # by then there is one

    java, jars = Path(java_path()).resolve(), Path(pyspark.__file__).parent / "jars"
    told = [str(java), str(jars), pyspark.__version__]
    told += [str(found.stat().st_mtime_ns) for found in (java, jars) if found.exists()]
    return Path(sys.prefix, "share", "mkdm", f"classes-{crc32(' '.join(told).encode()):08x}.jsa")


def class_options() -> str:
    """What tells a JVM to start from the archive of classes; empty where there is none."""
    if os.environ.get(DUMP_VARIABLE):
        return f"-XX:ArchiveClassesAtExit={os.environ[DUMP_VARIABLE]} {_QUIET}"
    path = archive_path()
    return f"-XX:SharedArchiveFile={path} {_QUIET}" if path.exists() and " " not in str(path) else ""


def _plain_version(java: str) -> str:
    return subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr


if __name__ == "__main__":
    try:
        check_java()
    except ClusterError as error:
        sys.exit(f"error: {error}")
