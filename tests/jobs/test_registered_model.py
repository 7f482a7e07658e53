"""Scoring with a model of an MLflow registry, here a folder of files; a real server is in test_mlflow_model.py."""

from dataclasses import replace
from pathlib import Path

import mlflow
import numpy as np
import pytest

from jobs.engine import Identity, Ledger
from jobs.export_model import ExportModelConfig
from jobs.score import ScoreConfig, run
from mkdm.errors import ConfigError, ModelError
from mkdm.export import Registration, register
from mkdm.model.checkpoint import load_checkpoint, save_checkpoint
from mkdm.scoring.scorer import Scorer

NAME = "student"


@pytest.fixture
def registry(tmp_path, monkeypatch, student_folder):
    """The URI of a registry with one version, its alias champion."""
    uri = f"file:{tmp_path}/mlruns"
    monkeypatch.setenv("MKDM_CACHE", str(tmp_path / "cache"))
    register(student_folder, Registration(NAME, "champion", uri), {}, {})
    mlflow.set_tracking_uri(uri)
    yield uri
    mlflow.set_tracking_uri(None)


@pytest.mark.slow
def test_run_has_the_version_of_its_model_and_an_alias_may_move(spark, warehouse, registry, student_folder, tmp_path):
    config = ScoreConfig(f"models:/{NAME}@champion", warehouse.root, precision="fp32", incremental=True)
    report = run(spark, config)
    version = mlflow.MlflowClient().get_model_version(NAME, "1")
    (started,) = warehouse.table("runs").read().where("state = 'started'").collect()
    assert started.settings == {
        "backend": "auto",
        "precision": "fp32",
        "max_length": "None",
        "registered_model": NAME,
        "registered_version": "1",
        "registered_alias": "champion",
        "registered_run": version.run_id,
    }
    plain = run(spark, replace(config, model=student_folder))  # the same model, wherever it lies
    assert plain.run.run_id == report.run.run_id

    other = Path(tmp_path / "other")
    model, tokenizer, _ = load_checkpoint(student_folder)
    for header in model.model.parameters():
        header.data += 0.01
    save_checkpoint(model.model, tokenizer, other)
    assert register(other, Registration(NAME, "champion", registry), {}, {}) == f"models:/{NAME}/2"
    moved = run(spark, config)
    assert moved.run.run_id != report.run.run_id
    state = Ledger(warehouse.table("runs")).find(moved_identity(moved), moved.run.run_id)
    assert state is not None
    assert state.identity.origin["registered_version"] == "2"
    assert warehouse.table("scores").read().where(f"run_id = '{moved.run.run_id}'").count() == 300


def moved_identity(report):
    settings = {name: value for name, value in report.run.settings.items() if not name.startswith("registered_")}
    return Identity("score", settings, report.run.input_versions, report.run.model_version)


def test_model_that_is_not_there_ends_in_one_line(spark, warehouse, registry):
    with pytest.raises(ModelError, match="the registered model student has no alias best") as raised:
        run(spark, ScoreConfig(f"models:/{NAME}@best", warehouse.root))
    assert "\n" not in str(raised.value)


def test_export_of_a_registered_model_is_refused():
    with pytest.raises(ConfigError, match="give one local folder"):
        ExportModelConfig(f"models:/{NAME}/1")


@pytest.mark.slow
def test_spark_udf_of_mlflow_scores_a_table(spark, warehouse, registry, student_folder):
    score = mlflow.pyfunc.spark_udf(spark, f"models:/{NAME}@champion", env_manager="local")
    pairs = warehouse.table("pairs").read().limit(40)
    scored = pairs.withColumn("score", score("query", "passage")).toPandas()
    wanted = Scorer.load(student_folder).score(list(scored["query"]), list(scored["passage"]))
    assert dict(pairs.withColumn("score", score("query", "passage")).dtypes)["score"] == "float"
    np.testing.assert_allclose(scored["score"], wanted, atol=1e-6)
