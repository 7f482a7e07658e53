import json
import subprocess
from pathlib import Path

import pytest
from submitting import CLUSTER, fake_nvidia_smi

GPUS = CLUSTER / "shapes" / "gpus.sh"
SCRIPTS = sorted(CLUSTER.rglob("*.sh"))


@pytest.mark.parametrize("script", SCRIPTS, ids=[f"{path.parent.name}/{path.name}" for path in SCRIPTS])
def test_scripts_parse(script):
    done = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("uuids", [("GPU-aaaa-0",), ("GPU-aaaa-0", "GPU-bbbb-1")])
def test_gpus_are_told_as_spark_expects(spark, tmp_path, uuids):
    """Spark's own parser reads it."""
    path = fake_nvidia_smi(tmp_path, *uuids)
    done = subprocess.run([str(GPUS)], env={"PATH": path}, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {"name": "gpu", "addresses": list(uuids)}
    parsed = spark._jvm.org.apache.spark.resource.ResourceInformation.parseJson(done.stdout)
    assert (parsed.name(), list(parsed.addresses())) == ("gpu", list(uuids))


def test_no_gpu_is_one_line(tmp_path):
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\nexit 9\n")  # as without a driver
    (tmp_path / "nvidia-smi").chmod(0o755)
    done = subprocess.run(
        [str(GPUS)], env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("gpus.sh: nvidia-smi is missing or failed")
    assert len(done.stderr.splitlines()) == 1


def test_no_path_of_a_machine_and_no_secret_in_the_files():
    for path in CLUSTER.rglob("*"):
        if path.is_file() and path.suffix != ".pyc":
            text = path.read_text()
            wide = [line for line in text.splitlines() if not line.startswith("|")]  # rows of a table cannot be broken
            assert max(map(len, wide), default=0) <= 128, path
            assert len(text.splitlines()) < 300, path
            for word in ("/root/", "/home/", "/work/", "password", "token=", "secret"):
                assert word not in text.lower(), (path, word)
            assert str(Path.home()) not in text or str(Path.home()) == "/", path
