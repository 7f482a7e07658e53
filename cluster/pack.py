"""Packs the engine and its Python packages into one archive that executors unpack: no checkout, no packages there.

The archive is a folder of packages and `bin/python`, a shell script that starts the executor's own Python with them.
Unlike a packed virtual environment it names no path of the machine that packed it. Spark's own Python stays outside:
executors have it from Spark, at Spark's version.
"""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path

from cluster.errors import ClusterError

ARCHIVE, SUBMIT = "environment.tar.gz", "submit.py"
NAME = "environment"
"""What the archive is called where an executor has unpacked it."""
PYTHON = f"./{NAME}/bin/python"
_VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
_PACKAGES = ("cluster", "jobs", "mkdm", "udfs")
_LEFT_OUT = re.compile(r"(^|/)(tests|__pypackages__)/|\.a$|^bin/")
"""Below the packages: their own tests, static libraries, and scripts that name this machine's Python."""
_LAUNCHER = f"""#!/bin/sh
# This machine's Python {_VERSION} ($MKDM_PYTHON, or python{_VERSION} of PATH) with the packages beside this script.
here=$(cd "$(dirname "$0")/.." && pwd) || exit 1
python=${{MKDM_PYTHON:-python{_VERSION}}}
if ! command -v "$python" >/dev/null 2>&1; then
  echo "error: no $python on this executor: install Python {_VERSION} or set spark.executorEnv.MKDM_PYTHON" >&2
  exit 127
fi
PYTHONPATH="$here/packages${{PYTHONPATH:+:$PYTHONPATH}}" PYTHONNOUSERSITE=1 exec "$python" "$@"
"""
_SUBMIT = '''"""What spark-submit runs: `spark-submit … submit.py score --model …` is `mkdm score --model …`."""

from jobs.__main__ import main

main()
'''


@dataclass(frozen=True)
class Packed:
    """What was packed.

    Attributes:
        archive: the packages with their `bin/python`.
        wheel: the engine alone.
        submit: the script for spark-submit.
        packages: how many packages are in the archive.
        unpacked_bytes: what they take where they are unpacked.
    """

    archive: Path
    wheel: Path
    submit: Path
    packages: int
    unpacked_bytes: int


def build_wheel(checkout: Path, output: Path) -> Path:
    """Build the engine's wheel in `output`, out of a copy of the checkout, in which nothing else lies.

    Raises:
        ClusterError: there is no checkout, or pip fails.
    """
    if not (checkout / "setup.cfg").exists():
        raise ClusterError(f"{checkout} is no checkout of the engine to build a wheel of: pass --wheel FILE")
    with tempfile.TemporaryDirectory() as place:
        source = Path(place, "source")
        for name in _PACKAGES:
            shutil.copytree(checkout / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(checkout / name, source / name)
        _pip("wheel", "--no-deps", "--wheel-dir", str(Path(place, "wheel")), str(source))
        built = next(Path(place, "wheel").glob("*.whl"))
        return Path(shutil.move(built, output / built.name))


def extra_requirements(wheel: Path, extras: Sequence[str]) -> list[str]:
    """What a wheel's extras ask for, without what the wheel itself does.

    Raises:
        ClusterError: no such wheel, or no such extra in it.
    """
    try:
        with zipfile.ZipFile(wheel) as file:
            name = next(name for name in file.namelist() if name.endswith(".dist-info/METADATA"))
            lines = file.read(name).decode().splitlines()
    except (OSError, zipfile.BadZipFile, StopIteration) as error:
        raise ClusterError(f"{wheel} is no wheel: {error!r}") from error
    there = {line.partition(": ")[2] for line in lines if line.startswith("Provides-Extra: ")}
    for extra in extras:
        if extra not in there:
            raise ClusterError(f"{wheel.name} has no extra {extra!r}; it has {', '.join(sorted(there)) or 'none'}")
    asked = [line.partition(": ")[2] for line in lines if line.startswith("Requires-Dist: ")]
    found = [
        re.sub(r"\s*;.*", "", line)
        for line in asked
        for extra in extras
        if re.search(rf"extra == ['\"]{extra}['\"]", line)
    ]
    return list(dict.fromkeys(found))


def pack(
    output: Path, wheel: Path, requirements: Sequence[str], bare: Sequence[str], constraints: Path | None, check: str
) -> Packed:
    """Install packages into a folder of their own, try them, and write the archive.

    Args:
        output: an existing folder.
        requirements: what pip installs with all that it needs.
        bare: what it installs without what it needs, besides the wheel: packages that depend on pyspark.
        constraints: pip's file of versions.
        check: Python code that must run with the packages and Spark's, such as an import of what tasks import.

    Raises:
        ClusterError: pip fails, or the check does.
    """
    with tempfile.TemporaryDirectory(dir=output) as place:  # the packages may be too large for the temporary folder
        packages, launcher = Path(place, "packages"), Path(place, "bin", "python")
        packages.mkdir()
        launcher.parent.mkdir()
        launcher.write_text(_LAUNCHER)
        launcher.chmod(0o755)
        versions = ["--constraint", str(constraints)] if constraints else []
        into = ["install", "--target", str(packages), *versions]
        if requirements:
            _pip(*into, *requirements)
        _pip(*into, "--no-deps", str(wheel), *bare)
        _try(launcher, check)
        there = sorted(f"{one.metadata['Name']}=={one.version}" for one in distributions(path=[str(packages)]))
        Path(place, "packages.txt").write_text("\n".join(there) + "\n")
        size = _write_archive(Path(place), output / ARCHIVE)
    (output / SUBMIT).write_text(_SUBMIT)
    return Packed(output / ARCHIVE, wheel, output / SUBMIT, len(there), size)


def submit_flags(archive: Path, conf: dict[str, str]) -> list[str]:
    """The flags of spark-submit for an archive, in client mode; other settings may follow.

    The driver keeps the Python that runs this: it has the engine already.
    """
    ours = {"spark.pyspark.python": PYTHON, "spark.pyspark.driver.python": sys.executable}
    return ["--archives", f"{archive}#{NAME}", *(f"--conf={key}={value}" for key, value in {**conf, **ours}.items())]


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", *arguments, "--quiet", "--disable-pip-version-check", "--no-input"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        told = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        raise ClusterError(f"pip {arguments[0]} failed: {' '.join(told[:3]) or 'it said nothing'}")


def _try(launcher: Path, check: str) -> None:
    """Run the check as an executor would, with the packages, Spark's Python and nothing else of this environment."""
    import pyspark

    bare = getattr(sys, "_base_executable", sys.executable)  # of a virtual environment, the Python it was made from
    env = {**os.environ, "MKDM_PYTHON": bare, "PYTHONPATH": ""}
    with tempfile.TemporaryDirectory() as place:  # Spark's Python alone, without what lies beside it
        os.symlink(Path(pyspark.__file__).parent, Path(place, "pyspark"))
        jars = Path(pyspark.__file__).parent / "python" / "lib"
        env["PYTHONPATH"] = os.pathsep.join([place, *map(str, jars.glob("py4j*.zip"))])
        done = subprocess.run([launcher, "-c", check], env=env, cwd=place, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise ClusterError(f"the packed environment does not work: {last}")


def _write_archive(place: Path, archive: Path) -> int:
    """Returns the size of the files in it, in bytes."""
    size = 0
    part = archive.with_name(archive.name + ".part")
    with tarfile.open(part, "w:gz", compresslevel=4) as tar:  # 6 takes twice the time for 3 % less
        for path in sorted(place.rglob("*")):
            inside = path.relative_to(place).as_posix()
            below = inside.removeprefix("packages/")
            if path.is_file() and not (below != inside and _LEFT_OUT.search(below)):
                tar.add(path, inside, filter=_nobody)
                size += path.stat().st_size
    part.replace(archive)
    return size


def _nobody(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry
