"""The asset bundle against the classes of Databricks' SDK, and the init script with a stand-in for Python."""

import os
import re
import subprocess
import sys
import zipfile
from configparser import ConfigParser
from importlib import import_module

import pytest
import yaml
from databricks.sdk.service.jobs import JobSettings
from submitting import CLUSTER, ROOT, properties

FOLDER = CLUSTER / "databricks"
BUNDLE = yaml.safe_load((FOLDER / "databricks.yml").read_text())
RUNTIME_BRINGS = {
    "pyspark",
    "delta-spark",
    "numpy",
    "pandas",
    "pyarrow",
    "matplotlib",
    "PyYAML",
    "scikit-learn",
    "scipy",
}
"""Of what the engine needs: in Databricks Runtime 17.3, where pip must not replace it."""


def resolved(node, target: str):
    """The bundle's part as the CLI would send it for a target: `${…}` replaced."""
    values = {f"var.{name}": variable["default"] for name, variable in BUNDLE["variables"].items()}
    values |= {f"var.{name}": value for name, value in BUNDLE["targets"][target].get("variables", {}).items()}
    if isinstance(node, dict):
        return {key: resolved(value, target) for key, value in node.items()}
    if isinstance(node, list):
        return [resolved(value, target) for value in node]
    if not isinstance(node, str):
        return node
    whole = re.fullmatch(r"\$\{(var\.\w+)\}", node)
    return values[whole[1]] if whole else re.sub(r"\$\{(var\.\w+)\}", lambda found: str(values[found[1]]), node)


SERVERLESS = BUNDLE["targets"]["serverless"]["resources"]["jobs"]["mkdm_serverless"]


@pytest.fixture(params=BUNDLE["targets"])
def job(request):
    return resolved(BUNDLE["resources"]["jobs"]["mkdm"], request.param)


def test_the_sdk_knows_each_key_and_value_of_the_job(job):
    """It drops keys, and enumeration values, that the Jobs API does not have."""
    assert JobSettings.from_dict(job).as_dict() == job
    override = BUNDLE["targets"]["gpu"]["resources"]["jobs"]["mkdm"]
    assert JobSettings.from_dict(override).as_dict() == override


def test_the_bundle_has_the_parts_that_the_cli_reads():
    assert BUNDLE.keys() <= {"bundle", "sync", "variables", "resources", "targets"}
    assert [name for name, target in BUNDLE["targets"].items() if target.get("default")] == ["dev"]
    for target in BUNDLE["targets"].values():
        assert target["mode"] in ("development", "production")
        assert target.get("variables", {}).keys() <= BUNDLE["variables"].keys()
    for variable in BUNDLE["variables"].values():
        assert variable.keys() == {"description", "default"}
    used = str(BUNDLE["resources"]) + str(SERVERLESS)
    assert set(re.findall(r"\$\{var\.(\w+)\}", used)) == BUNDLE["variables"].keys()
    for path in BUNDLE["sync"]["paths"]:
        assert (FOLDER / path).exists()


def test_tasks_run_our_jobs_in_order(job):
    tasks = {task["task_key"]: task for task in job["tasks"]}
    assert {key: [before["task_key"] for before in task.get("depends_on", [])] for key, task in tasks.items()} == {
        "build_pairs": [],
        "is_there_a_zoo": ["build_pairs"],
        "label": ["is_there_a_zoo"],
        "score": ["build_pairs"],
        "rank": ["score"],
    }
    parameters = {parameter["name"] for parameter in job["parameters"]}
    clusters = {cluster["job_cluster_key"] for cluster in job["job_clusters"]}
    assert set(re.findall(r"\{\{job\.parameters\.(\w+)\}\}", str(job))) == parameters
    for key, task in tasks.items():
        if "spark_python_task" not in task:
            continue
        script = (FOLDER / task["spark_python_task"]["python_file"]).resolve()
        assert script == ROOT / "jobs" / f"{key}.py"
        assert "__main__" in script.read_text()
        assert task["job_cluster_key"] in clusters
        config = getattr(import_module(f"jobs.{key}"), f"{key.title().replace('_', '')}Config")
        flags = [word for word in task["spark_python_task"]["parameters"] if word.startswith("--")]
        assert {flag[2:].replace("-", "_") for flag in flags} <= config.__dataclass_fields__.keys()


def test_only_what_loads_a_model_gets_a_whole_machine(job):
    clusters = {cluster["job_cluster_key"]: cluster["new_cluster"] for cluster in job["job_clusters"]}
    assert clusters["scoring"]["spark_conf"]["spark.task.cpus"] == "16"
    assert "spark.task.cpus" not in clusters["building"]["spark_conf"]
    loading = {task["task_key"] for task in job["tasks"] if task.get("job_cluster_key") == "scoring"}
    assert loading == {"label", "score"}
    elsewhere = properties(CLUSTER / "yarn" / "spark-defaults.conf")
    for key, value in clusters["building"]["spark_conf"].items():
        assert elsewhere[key] == value


def test_the_serverless_job_does_the_same_without_clusters():
    job = resolved(SERVERLESS, "serverless")
    assert JobSettings.from_dict(job).as_dict() == job
    assert "job_clusters" not in job
    keys = {environment["environment_key"] for environment in job["environments"]}
    with_clusters = {task["task_key"]: task for task in BUNDLE["resources"]["jobs"]["mkdm"]["tasks"]}
    for task in job["tasks"]:
        assert task["environment_key"] in keys
        assert task["spark_python_task"] == with_clusters[task["task_key"]]["spark_python_task"]
    assert [task["task_key"] for task in job["tasks"]] == ["build_pairs", "score", "rank"]


def test_the_wheel_for_serverless_compute_brings_no_spark_and_no_torch(tmp_path):
    command = ["bash", str(FOLDER / "wheel.sh"), str(tmp_path)]
    done = subprocess.run(
        command, env=os.environ | {"PYTHON": sys.executable}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name == BUNDLE["variables"]["wheel"]["default"]
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = [name for name in archive.namelist() if name.endswith("METADATA")]
        lines = archive.read(metadata).decode().splitlines()
        assert "udfs/scoring.py" in archive.namelist()
    asked = [line.removeprefix("Requires-Dist: ") for line in lines if line.startswith("Requires-Dist: ")]
    needed = {re.match(r"[\w-]+", line)[0] for line in asked if "extra" not in line}
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    all_needed = set(re.findall(r"^[\w-]+", setup["options"]["install_requires"], re.MULTILINE))
    assert needed == all_needed - {"pyspark", "delta-spark", "torch"}


def init(tmp_path, wheel: bool = True, gpu: bool = False) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """The init script, and how it called pip."""
    volume, calls = tmp_path / "volume", tmp_path / "calls"
    for folder in (volume, tmp_path / "bin"):
        folder.mkdir()
    (volume / "constraints.txt").write_text((ROOT / "constraints.txt").read_text())
    for version in ("0.9.0", "0.10.0") if wheel else ():
        (volume / f"mkdm-{version}-py3-none-any.whl").touch()
    python = tmp_path / "bin" / "python"
    python.write_text(
        f'#!/bin/bash\necho "$*" >> {calls}\n'
        f'while (($#)); do [[ $1 != --constraint ]] || sort "$2" >> {calls}; shift; done\n'
    )
    python.chmod(0o755)
    if gpu:
        (tmp_path / "bin" / "nvidia-smi").write_text("#!/bin/sh\n")
        (tmp_path / "bin" / "nvidia-smi").chmod(0o755)
    environment = {"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", "MKDM_PYTHON": str(python), "MKDM_VOLUME": str(volume)}
    command = ["bash", str(FOLDER / "init.sh")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return done, calls.read_text().splitlines() if calls.exists() else []


def test_init_script_installs_what_the_runtime_lacks_in_the_tested_versions(tmp_path):
    done, calls = init(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "--no-deps" in calls[0]
    assert calls[0].endswith("mkdm-0.10.0-py3-none-any.whl"), "the newest"
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    needed = re.findall(r"^[\w-]+", setup["options"]["install_requires"], re.MULTILINE)
    installed = {word.split("[")[0] for word in calls[1].split() if re.match(r"[a-z]", word)} - {"pip", "install"}
    assert {word for word in installed if not word.startswith("/")} == {*needed, "openvino"} - RUNTIME_BRINGS
    assert len(calls[2:]) == len(set(needed) - RUNTIME_BRINGS) + 1
    assert all(line in (ROOT / "constraints.txt").read_text() for line in calls[2:])


def test_init_script_leaves_torch_to_a_runtime_with_gpus(tmp_path):
    _, calls = init(tmp_path, gpu=True)
    assert " torch" not in calls[-1]
    assert not any(line.startswith("torch==") for line in calls)


def test_init_script_tells_what_is_missing(tmp_path):
    done, calls = init(tmp_path, wheel=False)
    assert (done.returncode, calls) == (1, [])
    assert done.stderr == f"init.sh: {tmp_path / 'volume'} holds no mkdm-*.whl\n"
