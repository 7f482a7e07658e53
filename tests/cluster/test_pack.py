import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from loopback import LoopbackCluster

from cluster.errors import ClusterError
from cluster.pack import PYTHON, build_wheel, extra_requirements, pack, submit_flags
from cluster.session import ClusterConfig, _check_environment, _own_conf
from jobs.__main__ import main as mkdm
from jobs.pack import CHECKOUT, PackConfig
from mkdm.errors import ConfigError
from tests.cluster.bare import bare_python, run_bare

WHERE = "import mkdm, sys; print(mkdm.__file__, *sorted({n.split('.')[0] for n in sys.modules} & {'numpy', 'torch'}))"


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """The engine's own wheel with no other package: real, and made in seconds."""
    output = tmp_path_factory.mktemp("pack")
    return pack(output, build_wheel(CHECKOUT, output), [], (), None, "import mkdm.errors")


def test_archive_holds_the_engine_and_no_path_of_this_machine(packed):
    with tarfile.open(packed.archive) as tar:
        names = tar.getnames()
        texts = [tar.extractfile(name).read() for name in ("bin/python", "packages.txt")]
    assert {"bin/python", "packages.txt", "packages/mkdm/scoring/scorer.py", "packages/jobs/__main__.py"} <= set(names)
    assert not [name for name in names if "/tests/" in name or name.startswith("packages/bin")]
    assert b"mkdm==" in texts[1]
    assert not [text for text in texts if str(CHECKOUT).encode() in text or sys.prefix.encode() in text]


def test_wheel_draws_a_page_with_its_own_templates(packed, tmp_path):
    """From the zip that it is: nothing is unpacked, and no checkout is near."""
    page = (
        "import mkdm.pages as pages; "
        "print(pages.__file__, pages.run_page(pages.RunFigures([], [], {}, {}, [], [0] * pages.SCORE_BINS), 'a < b'))"
    )
    env = os.environ | {"PYTHONPATH": str(packed.wheel)}
    done = subprocess.run(
        [sys.executable, "-c", page], env=env, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout.startswith(f"{packed.wheel}/mkdm/pages/__init__.py <!doctype html>"), done.stderr
    assert "<title>a &lt; b</title>" in done.stdout
    there = {path.name for path in (CHECKOUT / "mkdm" / "pages" / "templates").iterdir()}
    with zipfile.ZipFile(packed.wheel) as file:
        packed_ones = {Path(name).name for name in file.namelist() if name.startswith("mkdm/pages/templates/")}
    assert packed_ones == there


def test_python_of_the_archive_runs_elsewhere(packed, tmp_path):
    with tarfile.open(packed.archive) as tar:
        tar.extractall(tmp_path / "environment", filter="data")
    python = tmp_path / "environment" / "bin" / "python"
    done = run_bare([str(python), "-c", WHERE], tmp_path, bare_python(tmp_path))
    assert done.stdout.split() == [f"{tmp_path}/environment/packages/mkdm/__init__.py"], done.stderr
    without = run_bare([str(python), "-c", WHERE], tmp_path, "/nowhere")
    assert without.returncode == 127
    assert "no python3.11 on this executor" in without.stderr or "not found" in without.stderr


@pytest.mark.slow
def test_executors_with_nothing_of_ours_import_the_engine(packed, tmp_path):
    """Master and worker on loopback in a bare environment; the driver sends them the archive."""
    (tmp_path / "where.py").write_text(
        "from pyspark import SparkContext\n"
        "def where(_):\n"
        "    import mkdm, os\n"
        "    return mkdm.__file__, os.getcwd(), os.environ.get('VIRTUAL_ENV', '')\n"
        "print('FOUND', *SparkContext.getOrCreate().parallelize([0], 1).map(where).first())\n"
    )
    with LoopbackCluster(tmp_path / "cluster", workers=1, path=bare_python(tmp_path)) as cluster:
        flags = ["--master", cluster.master, *submit_flags(packed.archive, {"spark.ui.enabled": "false"})]
        submit = [str(Path(sys.executable).parent / "spark-submit"), *flags, str(tmp_path / "where.py")]
        done = subprocess.run(submit, cwd=tmp_path, env=driver(cluster), capture_output=True, text=True, check=False)
    found = next((line.split() for line in done.stdout.splitlines() if line.startswith("FOUND")), None)
    assert found is not None, done.stderr[-2000:]
    assert found[1].startswith(str(tmp_path / "cluster"))
    assert Path(found[1]).parts[-4:] == ("environment", "packages", "mkdm", "__init__.py")
    assert Path(found[2]).is_relative_to(tmp_path / "cluster")


@pytest.fixture(scope="module")
def exported_student(student_folder, texts, tmp_path_factory) -> str:
    """The tiny student with fp32 IR files."""
    import numpy as np

    from mkdm.export.openvino_export import ExportSettings, export_model
    from mkdm.export.quality_gate import ValidationPairs

    folder = Path(shutil.copytree(student_folder, tmp_path_factory.mktemp("exported") / "student"))
    validation = ValidationPairs(texts[0], *texts, np.arange(len(texts[0])) % 2)
    export_model(folder, (texts[0][:5], texts[1][:5]), validation, ExportSettings(("fp32",), max_auc_loss=1.0))
    return str(folder)


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["openvino"])
def test_pack_scores_on_bare_executors_as_here(runtime, sample_pairs, tmp_path, exported_student, spark):
    """The whole of it, a few hundred MB from the package registry: the command, then its own spark-submit line."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from deltalake import DeltaTable

    from jobs.pack import run
    from mkdm.scoring.scorer import Scorer

    report = run(PackConfig(output=str(tmp_path / "pack"), runtime=runtime))
    pq.write_table(pa.Table.from_pylist(sample_pairs[:8]), tmp_path / "pairs.parquet")
    jars = spark.sparkContext.getConf().get("spark.jars") or ""
    with LoopbackCluster(tmp_path / "cluster", workers=1, path=bare_python(tmp_path)) as cluster:
        command = report.command
        if jars:  # where tests run without a Maven repository
            command = [*command[:1], "--jars", jars, *command[3:]]
        command[0] = str(Path(sys.executable).parent / command[0])
        command[1:1] = ["--master", cluster.master, "--conf=spark.executor.cores=1", "--conf=spark.ui.enabled=false"]
        flags = ["--model", exported_student, "--precision", "fp32", "--backend", "openvino", "--chunks", "1"]
        flags += ["--pairs", str(tmp_path / "pairs.parquet"), "--warehouse", str(tmp_path / "w")]
        command += ["score", *flags]
        done = subprocess.run(command, cwd=tmp_path, env=driver(cluster), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    scores = {
        row["passage_id"]: row["score"]
        for row in DeltaTable(str(tmp_path / "w" / "scores")).to_pyarrow_table().to_pylist()
    }
    local = Scorer.load(exported_student, backend="openvino", precision="fp32").score(
        [pair["query"] for pair in sample_pairs[:8]], [pair["passage"] for pair in sample_pairs[:8]]
    )
    assert [scores[pair["passage_id"]] for pair in sample_pairs[:8]] == pytest.approx(local.tolist(), abs=1e-5)


def driver(cluster: LoopbackCluster) -> dict[str, str]:
    """The environment of a driver that has the engine, without what the tests have set for executors."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYSPARK")}
    env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"  # as in an environment that was activated
    return env | {"PYTHONPATH": str(CHECKOUT), "SPARK_LOCAL_IP": "127.0.0.1", "SPARK_CONF_DIR": str(cluster.folder)}


def test_requirements_are_those_of_the_extras_alone(packed):
    asked = extra_requirements(packed.wheel, ["executor", "executor-openvino"])
    assert {"openvino", "transformers>=5.23", "pyarrow>=14.0.2"} <= set(asked)
    assert not [one for one in asked if one.startswith(("torch", "pyspark", "petastorm", "matplotlib"))]
    with pytest.raises(ClusterError, match="has no extra 'ftp'; it has abfs, "):
        extra_requirements(packed.wheel, ["ftp"])


def test_what_does_not_work_is_told_in_one_line(packed, tmp_path, capsys):
    with pytest.raises(ClusterError, match="is no checkout of the engine"):
        build_wheel(tmp_path, tmp_path)
    with pytest.raises(ClusterError, match="does not work: ModuleNotFoundError: No module named 'numpy'"):
        pack(tmp_path, packed.wheel, [], (), None, "import numpy")
    with pytest.raises(ConfigError, match="--wheel is nowhere"):
        PackConfig(output=str(tmp_path), wheel="nowhere.whl")
    with zipfile.ZipFile(tmp_path / "odd.whl", "w"):
        pass
    with pytest.raises(SystemExit) as stop:
        mkdm(["pack", "--output", str(tmp_path), "--wheel", str(tmp_path / "odd.whl")])
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path}/odd.whl is no wheel")


def test_submit_flags_name_the_python_of_the_archive():
    flags = submit_flags(Path("/p/environment.tar.gz"), {})
    assert flags[:2] == ["--archives", "/p/environment.tar.gz#environment"]
    assert f"--conf=spark.pyspark.python={PYTHON}" in flags


def test_session_of_our_own_ships_the_archive(tmp_path):
    (tmp_path / "environment.tar.gz").touch()
    archive = str(tmp_path / "environment.tar.gz")
    conf = _own_conf(ClusterConfig(master="spark://h:7077", environment=archive), True)
    assert conf["spark.archives"] == f"{archive}#environment"
    _check_environment(ClusterConfig(master="spark://h:7077", environment=archive))
    for config, message in (
        (ClusterConfig(environment=archive), "pass --master too"),
        (ClusterConfig(master="spark://h:7077", environment=str(tmp_path / "no")), "where there is no file"),
    ):
        with pytest.raises(ClusterError, match=message):
            _check_environment(config)
