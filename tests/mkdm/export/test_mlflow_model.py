"""A student in the registry of a real MLflow server, from registering to scoring, and what such a server may refuse."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from local_http import free_port
from mlflow_servers import answering, mlflow_server
from tiny_teachers import save_classifier
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import mkdm
from mkdm.errors import ConfigError, ModelError
from mkdm.export import Registration, register
from mkdm.model import pinned_models
from mkdm.model.folder import model_folders, model_version
from mkdm.scoring.scorer import Scorer

mlflow = pytest.importorskip("mlflow")
pytest.importorskip("sqlalchemy", reason="the server is in the package mlflow, which is not installed")
NAME = "main.qa.student"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as uri:
        yield uri


@pytest.fixture
def cache(tmp_path, monkeypatch):
    mlflow.set_tracking_uri(None)
    monkeypatch.setenv("MKDM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def chosen(server, cache):
    mlflow.set_tracking_uri(server)
    yield server
    mlflow.set_tracking_uri(None)


@pytest.fixture(scope="module")
def registered(server, student_folder):
    """The location of a version whose alias is champion."""
    figures = {"valid auc": 0.9, "int8 auc_change": -0.0006}
    return register(student_folder, Registration(NAME, "champion", server), figures, {"teachers": "bge,e5"})


def test_version_has_signature_figures_card_and_alias(registered, chosen, student_folder):
    client = mlflow.MlflowClient()
    version = client.get_model_version_by_alias(NAME, "champion")
    assert registered == f"models:/{NAME}/{version.version}"
    assert "| valid auc | 0.9 |" in version.description
    assert "| teachers | bge,e5 |" in version.description
    assert mlflow.get_run(version.run_id).data.metrics == {"valid.auc": 0.9, "int8.auc_change": -0.0006}
    info = mlflow.models.get_model_info(registered)
    assert [(one.name, one.type.name) for one in info.signature.inputs] == [("query", "string"), ("passage", "string")]
    assert [(one.name, one.type.name) for one in info.signature.outputs] == [("score", "float")]
    again = register(student_folder, Registration(NAME, "challenger", chosen), {}, {})
    assert again == registered
    assert client.get_model_version_by_alias(NAME, "challenger").version == version.version


def test_alias_is_pinned_to_its_version_and_gives_the_same_files(registered, chosen, student_folder, cache):
    location, origin = pinned_models(f"models:/{NAME}@champion")
    version = mlflow.MlflowClient().get_model_version_by_alias(NAME, "champion")
    assert origin == {
        "registered_model": NAME,
        "registered_version": str(version.version),
        "registered_alias": "champion",
        "registered_run": version.run_id,
    }
    (folder,) = model_folders(location)
    assert folder.parent == cache
    assert model_version(folder) == model_version(student_folder)
    assert not list(folder.glob("*.py"))
    mlflow.set_tracking_uri("http://127.0.0.1:9")  # what is pinned is asked of nobody again
    assert pinned_models(location) == (location, origin)
    assert model_folders(location) == [folder]


def test_pyfunc_scores_a_frame_as_the_scorer_does(registered, chosen, student_folder, texts):
    model = mlflow.pyfunc.load_model(registered)
    frame = pd.DataFrame({"query": texts[0][:40], "passage": texts[1][:40]}, index=range(7, 47))
    scored = model.predict(frame)
    wanted = Scorer.load(student_folder).score(texts[0][:40], texts[1][:40])
    assert scored["score"].dtype == np.float32
    assert list(scored.index) == list(frame.index)
    np.testing.assert_array_equal(scored["score"].to_numpy(), wanted)
    frame.loc[8, "passage"] = None
    holey = model.predict(frame)["score"].to_numpy()
    assert np.isnan(holey[1])
    np.testing.assert_allclose(np.delete(holey, 1), np.delete(wanted, 1), atol=1e-6)


ALONE = """
import sys
sys.path[:] = [path for path in sys.path if path not in ("", sys.argv[2])]
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in sys.argv[3:]:
            raise ImportError(name)
sys.meta_path.insert(0, Absent())
sys.meta_path[:] = [one for one in sys.meta_path if "editable" not in str(one).lower()]
import mlflow, pandas
model = mlflow.pyfunc.load_model(sys.argv[1])
import mkdm
assert "/code/" in mkdm.__file__, mkdm.__file__
print(model.predict(pandas.DataFrame({"query": ["a"], "passage": ["b"]}))["score"].item())
"""
ABSENT = ("delta", "jobs", "udfs", "cluster", "lxml", "jsonargparse", "semantic_text_splitter", "petastorm")


def test_pyfunc_needs_neither_the_package_nor_spark(registered, chosen, student_folder, tmp_path):
    folder = mlflow.artifacts.download_artifacts(registered, dst_path=str(tmp_path / "served"))
    command = [sys.executable, "-c", ALONE, folder, str(Path(mkdm.__file__).parent.parent), *ABSENT]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == pytest.approx(float(Scorer.load(student_folder).score(["a"], ["b"])[0]), abs=1e-6)


def test_artifacts_of_a_run_are_a_model(chosen, student_folder):
    with mlflow.start_run() as run:
        mlflow.log_artifacts(student_folder, "plain")
        mlflow.log_text("nothing", "other/notes.txt")
    uri = f"runs:/{run.info.run_id}/plain"
    location, origin = pinned_models(uri)
    assert origin == {"registered_model": uri, "registered_run": run.info.run_id}
    assert model_version(model_folders(location)[0]) == model_version(student_folder)
    with pytest.raises(ModelError, match=r"is no model folder, and no model of ours: config\.json was looked for"):
        pinned_models(f"runs:/{run.info.run_id}/other")


@pytest.mark.slow
def test_model_that_mlflow_s_own_transformers_flavour_logged(chosen, tokenizers, texts, tmp_path):
    save_classifier(tmp_path / "teacher", "bert", tokenizers["bert"])
    parts = {
        "model": AutoModelForSequenceClassification.from_pretrained(tmp_path / "teacher"),
        "tokenizer": AutoTokenizer.from_pretrained(tmp_path / "teacher"),
    }
    mlflow.transformers.log_model(
        parts, name="m", task="text-classification", registered_model_name="reranker", pip_requirements=[]
    )
    found = Scorer.load("models:/reranker/1", "torch", "fp32").score(texts[0][:5], texts[1][:5])
    wanted = Scorer.load(tmp_path / "teacher", "torch", "fp32").score(texts[0][:5], texts[1][:5])
    np.testing.assert_array_equal(found, wanted)


def test_artifact_that_changed_after_it_was_registered_is_refused(chosen, student_folder, tmp_path, cache):
    changed = Path(shutil.copytree(student_folder, tmp_path / "changed"))
    config = (changed / "config.json").read_text()
    (changed / "config.json").write_text(config + " ")
    with mlflow.start_run() as run:
        mlflow.log_artifacts(str(changed), "model")
    with pytest.raises(ModelError, match=r"config\.json in runs:/\w+/model has changed since it was saved"):
        pinned_models(f"runs:/{run.info.run_id}/model")
    assert not [path for path in cache.iterdir() if path.is_dir()]


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("models:/main.qa.nobody@champion", "there is no registered model main.qa.nobody"),
        ("models:/main.qa.nobody/1", "there is no registered model main.qa.nobody"),
        (f"models:/{NAME}@best", rf"the registered model {NAME} has no alias best \(it has: .*champion"),
        (f"models:/{NAME}/99", f"the registered model {NAME} has no such version"),
        ("runs:/0123456789abcdef0123456789abcdef/model", "there is no run 0123456789abcdef0123456789abcdef"),
    ],
)
def test_what_is_not_there(registered, chosen, uri, told):
    with pytest.raises(ModelError, match=told):
        pinned_models(uri)


@pytest.mark.parametrize("uri", [f"models:/{NAME}", f"models:/{NAME}/latest", "runs:/abc"])
def test_what_is_no_location(cache, uri):
    with pytest.raises(ConfigError, match="is no model of MLflow: give models:/NAME@ALIAS"):
        pinned_models(uri)


def test_server_that_does_not_let_the_user_in(cache, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with answering(403) as uri:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        with pytest.raises(ModelError, match="does not open it to you: check your token and rights"):
            pinned_models(f"models:/{NAME}@champion")


def test_server_that_is_not_there(cache, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(ModelError, match="is not reached: check MLFLOW_TRACKING_URI"):
        pinned_models(f"models:/{NAME}@champion")


def test_server_that_nobody_named(cache, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(ConfigError, match="set MLFLOW_TRACKING_URI to MLflow's server"):
        pinned_models(f"models:/{NAME}@champion")
    with pytest.raises(ConfigError, match="--register student: give --mlflow URI"):
        Registration.wanted("student", None, None)
    with pytest.raises(ConfigError, match="--register-alias names a version of --register NAME"):
        Registration.wanted(None, "champion", None)
