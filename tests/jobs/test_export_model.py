import json
import shutil
from dataclasses import replace
from pathlib import Path

import mlflow
import numpy as np
import pyarrow.parquet as pq
import pytest
from tiny_models import SAMPLE

from jobs import score
from jobs.engine import Warehouse
from jobs.engine.ledger import Ledger
from jobs.export_model import ExportModelConfig, run
from jobs.score import ScoreConfig
from mkdm.errors import ConfigError, InputError, ModelError, QualityGateError
from mkdm.scoring import machine_precisions
from mkdm.scoring.scorer import Scorer
from udfs.scoring import ScoringSettings, check_model, load

GOLDEN = str(SAMPLE / "golden_labels.parquet")


@pytest.fixture
def config(student_folder, warehouse, tmp_path) -> ExportModelConfig:
    """fp32 and int8 of a copy of the tiny student, on the warehouse's 300 pairs; any AUC will do."""
    folder = shutil.copytree(student_folder, tmp_path / "student")
    sizes = {"calibration_rows": 20, "validation_rows": 100, "max_auc_loss": 1.0, "precisions": "int8,fp32"}
    return ExportModelConfig(str(folder), warehouse.root, golden_labels=GOLDEN, **sizes)


def runs_of(warehouse: Warehouse, job: str) -> list[dict]:
    return [row.asDict() for row in Ledger(warehouse.table("runs")).rows(job=job)]


def test_export_is_recorded_and_scored_with(spark, warehouse, config, texts, sample_pairs, tmp_path, monkeypatch):
    registry = f"file:{tmp_path}/mlruns"
    report = run(spark, replace(config, register="student", register_alias="fast", mlflow=registry))
    lines = str(report).splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["torch", "fp32", "int8"]
    record = json.loads(Path(config.model, "openvino", "export.json").read_text())
    assert record["about"]["run_id"] == report.run_id
    assert record["about"]["version of pairs"].endswith("@0")
    started, complete = runs_of(warehouse, "export-model")
    assert (started["state"], complete["state"], complete["run_id"]) == ("started", "complete", report.run_id)
    noted = float(complete["settings"]["int8 auc_change"])
    assert noted == pytest.approx(record["exported"]["int8"]["figures"]["auc_change"], abs=1e-5)
    assert complete["rows_read"] == 100

    scored = score.run(spark, ScoreConfig(config.model, warehouse.root))
    rows = {(row.query_id, row.passage_id): row.score for row in warehouse.table("scores").read().collect()}
    settled = runs_of(warehouse, "score")[0]["settings"]["runs_as"]
    assert settled in ("openvino:fp32", "openvino:int8"), "whichever was quicker, of those that the machine runs"
    taken = settled.partition(":")[2]
    assert taken in machine_precisions()
    expected = Scorer.load(config.model, "openvino", taken).score(*texts)
    found = np.array([rows[pair["query_id"], pair["passage_id"]] for pair in sample_pairs])
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-2)  # activations are rounded batch by batch
    drift = np.abs(found - Scorer.load(config.model, "torch", "fp32").score(*texts)).max()
    assert (drift > 1e-4) == (taken == "int8")
    assert runs_of(warehouse, "score")[0]["settings"]["export"] == report.export.version()

    monkeypatch.setenv("MLFLOW_TRACKING_URI", registry)
    monkeypatch.setenv("MKDM_CACHE", str(tmp_path / "cache"))
    registered = check_model("models:/student@fast", "openvino", "auto")
    assert registered.export_version == report.export.version()
    version = mlflow.MlflowClient().get_model_version("student", "1")
    assert mlflow.get_run(version.run_id).data.metrics["int8.auc_change"] == pytest.approx(noted, abs=1e-5)
    assert report.run_id in version.description

    with pytest.raises(ModelError, match="the driver's are None"):  # as if the export came after the driver's check
        load(ScoringSettings(config.model, report.export.model_version))
    shutil.rmtree(Path(config.model, "openvino"))
    assert score.run(spark, ScoreConfig(config.model, warehouse.root)).run.run_id != scored.run.run_id
    with pytest.raises(ModelError, match="has no int8 IR file: run mkdm export-model"):
        score.run(spark, ScoreConfig(config.model, warehouse.root, precision="int8"))


def test_onnx_files_through_the_same_gate(spark, warehouse, config):
    report = run(spark, replace(config, format="onnx", precisions=None))
    record = json.loads(Path(config.model, "onnx", "export.json").read_text())
    assert record["about"]["run_id"] == report.run_id
    assert list(record["exported"]) == ["fp32", "int8"]
    assert record["exported"]["fp32"]["figures"]["max_score_drift"] <= 1e-5
    settings = runs_of(warehouse, "export-model")[-1]["settings"]
    assert (settings["format"], settings["precisions"]) == ("onnx", "fp32,int8")
    assert not Path(config.model, "openvino").exists()


def test_refused_precision_is_an_error_that_keeps_the_others(spark, warehouse, config, monkeypatch):
    monkeypatch.setattr("mkdm.export.quality_gate.EXACT", 1.0)
    monkeypatch.setattr("mkdm.export.export_run.failure", lambda precision, figures, loss: precision == "int8" or None)
    with pytest.raises(QualityGateError, match=r"int8 refused by the quality gate, kept: fp32; int8 changes AUC by"):
        run(spark, config)
    record = json.loads(Path(config.model, "openvino", "export.json").read_text())
    assert list(record["exported"]) == ["fp32"]
    assert "int8 auc_change" in runs_of(warehouse, "export-model")[-1]["settings"]


def test_pairs_without_golden_labels(spark, config, tmp_path):
    rows = pq.read_table(GOLDEN)
    pq.write_table(
        rows.set_column(0, "query_id", [[f"x{i}" for i in range(rows.num_rows)]]), tmp_path / "others.parquet"
    )
    with pytest.raises(InputError, match=r"has no pair with a golden label in .*others.parquet: there is nothing"):
        run(spark, ExportModelConfig(config.model, config.warehouse, golden_labels=str(tmp_path / "others.parquet")))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"precisions": "fp32,int3"}, "--precisions is 'fp32,int3': choose from fp32, bf16, int8"),
        ({"precisions": "bf16", "format": "onnx"}, "--precisions is 'bf16': choose from fp32, int8"),
        ({"calibration_rows": 0}, "--calibration-rows is 0; it must be at least 1"),
        ({"max_auc_loss": -0.1}, "--max-auc-loss is -0.1; it must be at least 0"),
        ({"model": "a,b"}, "--model is a,b; give one local folder"),
    ],
)
def test_settings_that_cannot_work(flags, message):
    with pytest.raises(ConfigError, match=message):
        ExportModelConfig(**({"model": "m"} | flags))
