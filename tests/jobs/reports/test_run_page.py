"""From runs over real pairs to the page of one of them, and to what Spark's own dashboards are told."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from browser import opened

from jobs.engine import Warehouse
from jobs.engine.ledger import Ledger
from jobs.reports.run_page import Places, gather
from jobs.runs import RunsConfig
from jobs.runs import run as runs
from jobs.score import ScoreConfig, run
from mkdm.errors import ConfigError, InputError

ROOT = Path(__file__).parents[3]
PAIRS = "query_id string, passage_id string, query string, passage string"
SECRET = "wJalrXUtnFEMIK7MDENGbPxRfi"


@pytest.mark.slow
def test_page_of_a_run_beside_the_one_before(spark, warehouse, student_folder, sample_pairs, tmp_path):
    bad = [("q", "null", "a", None), ("q", "long", "gasket " * 300, "a")]
    pairs = [tuple(pair.values()) for pair in sample_pairs]
    warehouse.table("pairs").overwrite(spark.createDataFrame(pairs + bad, PAIRS))
    config = ScoreConfig(model=student_folder, warehouse=warehouse.root, precision="fp32", chunks=2)
    first = run(spark, config)
    second = run(spark, ScoreConfig(**(vars(config) | {"max_length": 32, "chunks": 1})))

    file = tmp_path / "run.html"
    told = runs(spark, RunsConfig(warehouse=warehouse.root, report=str(file)))
    assert f"beside            {first.run.run_id}, the same model, 300 scores of its own" in told
    assert f"page              {file}" in told
    found, console = opened(file)
    assert console == []
    captions = {one["caption"]: one for one in found["drawn"]}
    assert len(captions) == 6
    assert all(one["width"] > 300 and one["shapes"] for one in captions.values())
    text = file.read_text()
    assert f"Scoring run {second.run.run_id}" in text
    assert "null_passage" in text

    places = Places(warehouse, Ledger(warehouse.table("runs")), *map(warehouse.table, ("scores", "rejected_pairs")))
    states = {state.run.run_id: state for state in places.ledger.states()}
    figures = gather(places, states[first.run.run_id])
    assert figures.before == [], "nothing was complete before the first run"
    assert (len(figures.chunks), sum(one.rows for one in figures.chunks)) == (2, 302)
    assert figures.rejects == {"null_passage": 1, "query_too_long": 1}
    assert sum(figures.token_histogram.values()) == sum(figures.scores) == 300
    assert all(length % 16 == 0 and 0 < length <= 128 for length in figures.token_histogram)
    (executor,) = figures.executors
    assert (executor.rows, executor.loads, executor.tokens) == (302, first.totals.model_loads, first.totals.tokens)
    assert 0 < executor.seconds <= first.totals.seconds
    later = gather(places, states[second.run.run_id])
    assert sum(later.before) == 300
    assert max(later.token_histogram) == 32
    assert later.psi > 0
    assert 0 < later.ks <= 1


@pytest.mark.slow
def test_report_of_no_run_and_to_no_folder(spark, warehouse, student_folder, tmp_path):
    with pytest.raises(InputError, match="has no scoring run nobody: see mkdm runs"):
        runs(spark, RunsConfig(warehouse=warehouse.root, report=str(tmp_path / "run.html"), run_id="nobody"))
    with pytest.raises(ConfigError, match="two commands"):
        RunsConfig(remove="a", report="b")
    warehouse.table("pairs").overwrite(warehouse.table("pairs").read().limit(3))
    run(spark, ScoreConfig(model=student_folder, warehouse=warehouse.root, precision="fp32"))
    with pytest.raises(ConfigError, match=r"cannot write --report .*/nowhere/run.html: No such file or directory"):
        runs(spark, RunsConfig(warehouse=warehouse.root, report=str(tmp_path / "nowhere" / "run.html")))


@pytest.fixture(scope="module")
def watched(spark, tmp_path_factory, tables, student_folder) -> tuple[Path, str]:
    """A run by command, with an event log, a sink of metrics and S3 keys in Spark's own configuration.

    Returns:
        Its folder, with warehouse/, events/ and sink/, and all that it printed.
    """
    import shutil

    place = tmp_path_factory.mktemp("watched")
    shutil.copytree(tables, place / "warehouse")
    for name in ("events", "sink", "conf"):
        (place / name).mkdir()
    conf = {
        "spark.eventLog.enabled": "true",
        "spark.eventLog.dir": (place / "events").as_uri(),
        "spark.eventLog.compress": "false",
        "spark.ui.enabled": "false",
        "spark.metrics.conf.driver.sink.csv.class": "org.apache.spark.metrics.sink.CsvSink",
        "spark.metrics.conf.driver.sink.csv.directory": str(place / "sink"),
        "spark.hadoop.fs.s3a.access.key": f"AKIA{SECRET}",
        "spark.hadoop.fs.s3a.secret.key": SECRET,
    }
    text = "".join(f"{name} {value}\n" for name, value in conf.items())
    (place / "conf" / "spark-defaults.conf").write_text(text)
    command = [sys.executable, "-m", "jobs", "score", "--model", student_folder, "--precision", "fp32"]
    command += ["--warehouse", str(place / "warehouse"), "--chunks", "2", "--driver-memory", "1g"]
    environment = os.environ | {"SPARK_CONF_DIR": str(place / "conf"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=place, check=False)
    assert done.returncode == 0, done.stderr
    return place, done.stdout + done.stderr


def events(place: Path) -> list[dict]:
    files = [path for path in (place / "events").rglob("*") if path.is_file() and not path.name.startswith("appstatus")]
    return [json.loads(line) for path in files for line in path.read_text().splitlines() if line.startswith("{")]


@pytest.mark.slow
def test_event_log_holds_the_figures_by_name(watched, spark):
    log = events(watched[0])
    values: dict[str, list[int]] = {}
    for event in log:
        for name, value in event.get("Properties", {}).items() if event["Event"] == "SparkListenerJobStart" else []:
            if name.startswith("mkdm.") and values.get(name, [None])[-1] != int(value):
                values.setdefault(name, []).append(int(value))
    total = Ledger(Warehouse(spark, str(watched[0] / "warehouse")).table("runs")).states()[0].totals
    assert values["mkdm.chunks"] == [1, 2], "sums so far, after each chunk"
    assert values["mkdm.rows_read"][-1] == values["mkdm.rows_written"][-1] == 300
    assert values["mkdm.tokens"][-1] == total.tokens > 0
    assert values["mkdm.padded_tokens"][-1] >= total.tokens
    assert values["mkdm.model_loads"][-1] == 1
    described = {event.get("Properties", {}).get("spark.job.description") for event in log}
    assert any(one and one.startswith("mkdm score score-") and one.endswith(": chunk 1") for one in described)


@pytest.mark.slow
def test_metrics_sink_gets_the_gauges(watched):
    (file,) = (watched[0] / "sink").rglob("*AccumulatorSource.mkdm.rows_read.csv")
    with open(file) as lines:
        assert float(list(csv.DictReader(lines))[-1]["value"]) == 300


@pytest.mark.slow
def test_keys_of_the_configuration_are_nowhere(watched):
    place, printed = watched
    assert "scored" in printed
    assert SECRET not in printed
    looked = 0
    for folder in ("warehouse", "events", "sink"):
        for path in (place / folder).rglob("*"):
            if path.is_file():
                looked += 1
                assert SECRET.encode() not in path.read_bytes(), path
    assert looked > 30
    assert any("redacted" in json.dumps(event) for event in events(place)), "Spark knows them for secrets"
