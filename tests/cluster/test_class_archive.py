"""The archive of Spark's classes: made once, used by every JVM it suits, and never in the way."""

import os
import subprocess
import sys

import pytest

from cluster.class_archive import make_archive
from cluster.java import DUMP_VARIABLE, archive_path, class_options, java_path

STARTED = """
import sys
from cluster.session import ClusterConfig, start_session
sys.prefix = sys.argv[1]
spark = start_session(ClusterConfig(), "classes")
print("rows", spark.range(3).count())
"""


@pytest.fixture
def prefix(tmp_path, monkeypatch):
    """An environment of its own, without an archive."""
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.delenv(DUMP_VARIABLE, raising=False)
    return tmp_path


def test_without_an_archive_a_jvm_starts_as_ever(prefix):
    assert class_options() == ""
    assert archive_path().parent == prefix / "share" / "mkdm"


def test_another_java_has_another_archive(prefix, monkeypatch, tmp_path):
    here = archive_path()
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text("#!/bin/sh\n")
    java.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    assert archive_path() != here


def test_an_archive_that_does_not_fit_is_passed_over_in_silence(prefix):
    archive_path().parent.mkdir(parents=True)
    archive_path().write_bytes(b"no archive")
    options = class_options().split()
    assert f"-XX:SharedArchiveFile={archive_path()}" in options
    done = subprocess.run([java_path(), *options, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("openjdk"), "nothing but the version"
    assert done.stderr == ""


@pytest.mark.slow
def test_classes_come_from_the_archive_that_was_made(prefix):
    """It holds Spark's own classes, and is not made a second time."""
    made = make_archive()
    assert made == archive_path()
    at = made.stat().st_mtime_ns
    assert make_archive() == made
    assert made.stat().st_mtime_ns == at
    environment = os.environ | {"JAVA_TOOL_OPTIONS": f"-Xlog:class+load:file={prefix}/loaded-%p.log"}
    done = subprocess.run(
        [sys.executable, "-c", STARTED, str(prefix)], capture_output=True, text=True, check=True, env=environment
    )
    assert "rows 3" in done.stdout
    loaded = max((log.read_text() for log in prefix.glob("loaded-*.log")), key=len).splitlines()
    shared = [line for line in loaded if "org.apache.spark" in line and "shared objects file (top)" in line]
    assert len(shared) > 3000
