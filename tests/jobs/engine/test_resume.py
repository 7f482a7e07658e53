"""Runs that are cut off, disturbed or raced: they end with the rows of an undisturbed run, bit for bit."""

import shutil
import subprocess
import threading
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from delta_sql import optimise, vacuum_all
from pyspark.sql.pandas.functions import pandas_udf
from tiny_models import tiny_student

from jobs.engine import Warehouse, scoring
from jobs.engine import chunked_run as chunked
from jobs.engine.chunks import auto_chunks
from jobs.runs import RunsConfig
from jobs.runs import run as list_runs
from jobs.score import ScoreConfig, run
from mkdm.errors import ConfigError, InputError, ModelError, RunFailedError
from mkdm.model.checkpoint import save_checkpoint
from tests.faults.outcome import Outcome, outcome
from udfs.scoring import RESULT, _block_scorer

CHUNKS = 2


@pytest.fixture
def config(warehouse, student_folder) -> ScoreConfig:
    return ScoreConfig(model=student_folder, warehouse=warehouse.root, precision="fp32", chunks=CHUNKS)


def but(config: ScoreConfig, **changes) -> ScoreConfig:
    return ScoreConfig(**(vars(config) | changes))


@pytest.fixture(scope="module")
def undisturbed(spark, tmp_path_factory, tables, student_folder) -> Outcome:
    """What a run of two chunks writes when nothing happens to it."""
    root = shutil.copytree(tables, tmp_path_factory.mktemp("undisturbed") / "warehouse")
    run(spark, ScoreConfig(model=student_folder, warehouse=str(root), precision="fp32", chunks=CHUNKS))
    assert not list(Path(root).glob("staging_*"))
    return outcome(Warehouse(spark, str(root)))


@pytest.fixture
def after_first_chunk(monkeypatch):
    """Has something happen between the first chunk's last commit and the next chunk."""

    def happen(action) -> None:
        commit = chunked.commit_chunk
        happened = []

        def commit_and_act(*args):
            totals = commit(*args)
            if not happened:
                happened.append(True)
                action()
            return totals

        monkeypatch.setattr(chunked, "commit_chunk", commit_and_act)

    return happen


def interrupt() -> None:
    raise KeyboardInterrupt


def test_cut_off_run_goes_on_under_the_same_fingerprint_alone(
    spark, warehouse, config, undisturbed, after_first_chunk, tmp_path, monkeypatch, capsys
):
    model = Path(shutil.copytree(config.model, tmp_path / "model"))
    config = but(config, model=str(model))
    after_first_chunk(interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(spark, config)
    monkeypatch.undo()
    listed = list_runs(spark, RunsConfig(warehouse=warehouse.root)).splitlines()[1].split()
    assert listed[1:5] == ["started", "1", "of", "2"]
    name = listed[0]

    with pytest.raises(ConfigError, match=rf"run {name} was started with another fingerprint.*max_length: None → 64"):
        run(spark, but(config, run_id=name, max_length=64))
    with pytest.raises(ConfigError, match=f"run {name} is cut into 2 chunks: leave --chunks out"):
        run(spark, but(config, chunks=5))
    weights = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(weights[:-4] + b"\0\0\0\0")
    with pytest.raises(ModelError, match=r"model\.safetensors in .* has changed"):
        run(spark, config)
    (model / "model.safetensors").write_bytes(weights)

    capsys.readouterr()
    report = run(spark, but(config, chunks="auto"))
    told = capsys.readouterr().err
    assert f"{name} goes on: 1 of 2 chunks, " in told
    assert outcome(warehouse) == undisturbed
    assert (report.run.run_id, report.totals.rows_read, report.run.chunks) == (name, 300, 2)
    assert not list(Path(warehouse.root).glob("staging_*"))
    assert " 2 of 2 " in list_runs(spark, RunsConfig(warehouse=warehouse.root))


@pytest.mark.slow
def test_model_folder_replaced_in_mid_run(
    spark, warehouse, config, undisturbed, after_first_chunk, tmp_path, tokenizers, monkeypatch
):
    model = Path(shutil.copytree(config.model, tmp_path / "model"))
    config = but(config, model=str(model))

    def replace_model() -> None:  # with a whole one, under which no row of this run may be scored
        model.rename(tmp_path / "right")
        save_checkpoint(tiny_student("bert", tokenizers["bert"]), tokenizers["bert"], model)
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):  # some end by themselves
                if "-m udfs.python_daemon" in " ".join(process.cmdline()):
                    process.kill()  # the new worker has to load the model

    after_first_chunk(replace_model)
    with pytest.raises(RunFailedError, match=r"^run score-\w+ failed: the model at .* on this executor is version"):
        run(spark, config)
    monkeypatch.undo()
    shutil.rmtree(model)
    (tmp_path / "right").rename(model)
    run(spark, config)
    assert outcome(warehouse) == undisturbed


@pytest.mark.slow
def test_input_overwritten_optimised_and_vacuumed_in_mid_run(
    spark, warehouse, config, undisturbed, after_first_chunk, sample_pairs
):
    pairs = warehouse.table("pairs")

    def replace_input() -> None:
        pairs.overwrite(spark.createDataFrame([{**pair, "query": "other"} for pair in sample_pairs[:7]]))
        optimise(pairs)
        vacuum_all(pairs)

    before = set(Path(pairs.location).glob("*.parquet"))
    after_first_chunk(replace_input)
    assert run(spark, config).totals.rows_read == 300
    assert not before & set(Path(pairs.location).glob("*.parquet")), "the files that the run had pinned are gone"
    assert outcome(warehouse) == undisturbed


def test_full_disk_is_one_line_and_loses_nothing(
    spark, tables, student_folder, undisturbed, after_first_chunk, tmp_path
):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small disk")
    try:
        warehouse = Warehouse(spark, str(shutil.copytree(tables, disk / "warehouse")))
        config = ScoreConfig(model=student_folder, warehouse=warehouse.root, precision="fp32", chunks=CHUNKS)
        balloon = disk / "balloon"

        def fill() -> None:
            with balloon.open("wb", buffering=0) as file:
                while file.write(b"\0" * 4096) == 4096:
                    pass

        def fill_up() -> None:
            with pytest.raises(OSError, match="No space left"):
                fill()

        after_first_chunk(fill_up)
        with pytest.raises(RunFailedError, match="No space left on device"):
            run(spark, config)
        balloon.unlink()
        run(spark, config)
        assert outcome(warehouse) == undisturbed
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.slow
def test_exception_that_comes_now_and_then(spark, warehouse, config, undisturbed, monkeypatch):
    """Each task's first try dies in mid-partition, with an exception that no row is to blame for."""

    def flaky_udf(settings):
        scorer = _block_scorer(settings)

        def flaky(batches):
            from pyspark import TaskContext

            for result in scorer(batches):
                if TaskContext.get().attemptNumber() == 0:
                    raise OSError("the weather")
                yield result

        flaky.__annotations__ = scorer.__annotations__
        return pandas_udf(flaky, RESULT).asNondeterministic()

    monkeypatch.setattr(scoring, "score_udf", flaky_udf)
    assert run(spark, config).totals.rows_read == 300
    assert outcome(warehouse) == undisturbed


@pytest.mark.slow
def test_two_drivers_at_once_on_the_same_run(spark, warehouse, config, undisturbed):
    reports = []
    errors = []

    def drive(session) -> None:
        try:
            reports.append(run(session, config))
        except Exception as error:
            errors.append(error)

    drivers = [threading.Thread(target=drive, args=(session,)) for session in (spark, spark.newSession())]
    for driver in drivers:
        driver.start()
    for driver in drivers:
        driver.join()
    assert not errors
    assert [report.totals.rows_read for report in reports] == [300, 300]
    assert len({report.run.run_id for report in reports}) == 1
    assert outcome(warehouse) == undisturbed


@pytest.mark.slow
def test_removed_run_is_not_gone_on_with(spark, warehouse, config, after_first_chunk, monkeypatch):
    after_first_chunk(interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(spark, but(config, run_id="mine"))
    monkeypatch.undo()
    assert list(Path(warehouse.root).glob("staging_*"))
    told = list_runs(spark, RunsConfig(warehouse=warehouse.root, remove="mine"))
    assert told.startswith("run mine, which was started, is removed, and ")
    assert warehouse.table("scores").read().isEmpty()
    assert not list(Path(warehouse.root).glob("staging_*"))
    with pytest.raises(ConfigError, match="run mine was removed: give another --run-id"):
        run(spark, but(config, run_id="mine"))
    shown = list_runs(spark, RunsConfig(warehouse=warehouse.root, run_id="mine"))
    assert "precision           fp32" in shown
    with pytest.raises(InputError, match="has no run yours: see mkdm runs"):
        list_runs(spark, RunsConfig(warehouse=warehouse.root, run_id="yours"))


@pytest.mark.parametrize(
    ("rows", "slots", "rate", "chunks"),
    [(1, 1, None, 1), (30_000, 1, None, 1), (30_001, 1, None, 2), (10**9, 1000, None, 34), (10**9, 1000, 10**6, 4)],
)
def test_auto_chunks_are_minutes_of_work(rows, slots, rate, chunks):
    assert auto_chunks(rows, slots, rate) == chunks


@pytest.mark.parametrize("name", ["", "a b", "../x", "a'b", "x" * 101])
def test_run_id_that_is_no_name(name):
    with pytest.raises(ConfigError, match="--run-id is"):
        ScoreConfig(model="", run_id=name)
