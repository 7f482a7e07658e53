import os
import stat

import pytest

from cluster.errors import ClusterError
from cluster.java import SUPPORTED, check_java


def fake_java(home, version: str, exit_code: int = 0) -> None:
    """A java that reports a version as real ones do, since only one real one is installed."""
    java = home / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\" 2025-04-15' >&2\nexit {exit_code}\n")
    java.chmod(java.stat().st_mode | stat.S_IXUSR)


def test_the_java_here_is_fit():
    assert check_java() in SUPPORTED


def test_no_java_on_path(monkeypatch):
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", os.devnull)
    with pytest.raises(ClusterError, match="no Java on PATH: install OpenJDK 17"):
        check_java()


def test_java_home_without_java(monkeypatch, tmp_path):
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(ClusterError, match="no Java in JAVA_HOME"):
        check_java()


@pytest.mark.parametrize(("version", "major"), [("1.8.0_402", 8), ("11.0.22", 11), ("25", 25)])
def test_unfit_version(version, major, monkeypatch, tmp_path):
    fake_java(tmp_path, version)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(ClusterError, match=f"Java {major} at .* is unfit, Spark 4 needs 17 or 21"):
        check_java()


def test_cut_down_jre(monkeypatch, tmp_path):
    fake_java(tmp_path, "17.0.1", exit_code=1)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(ClusterError, match=r"lacks the module jdk\.incubator\.vector"):
        check_java()
