import shutil
from pathlib import Path

import mlflow
import pytest
from pyspark import SparkFiles

from mkdm.errors import ModelError
from mkdm.export import Registration, register
from mkdm.model import packed, pinned_models
from mkdm.model.folder import model_folders, model_version
from udfs.shipping import receive


@pytest.fixture
def location(student_folder, tmp_path, monkeypatch):
    """Of a registered student, pinned by a driver."""
    monkeypatch.setenv("MKDM_CACHE", str(tmp_path / "driver"))
    register(student_folder, Registration("student", "champion", f"file:{tmp_path}/mlruns"), {}, {})
    mlflow.set_tracking_uri(f"file:{tmp_path}/mlruns")
    yield pinned_models("models:/student@champion")[0]
    mlflow.set_tracking_uri(None)


@pytest.fixture
def sent(tmp_path, monkeypatch):
    """The folder where Spark puts files on an executor, which has no MLflow server and a cache of its own."""
    (tmp_path / "sent").mkdir()
    monkeypatch.setattr(SparkFiles, "_root_directory", str(tmp_path / "sent"))
    monkeypatch.setattr(SparkFiles, "_is_running_on_worker", True)
    return tmp_path / "sent"


def test_executor_has_the_bytes_of_the_driver(location, sent, student_folder, tmp_path, monkeypatch):
    archive = packed(location)
    assert packed(location) == archive
    shutil.copy(archive, sent)
    monkeypatch.setenv("MKDM_CACHE", str(tmp_path / "executor"))
    mlflow.set_tracking_uri("http://127.0.0.1:9")
    receive(location)
    (folder,) = model_folders(location)
    assert folder.parent == tmp_path / "executor"
    assert model_version(folder) == model_version(student_folder)
    assert sorted(path.name for path in folder.parent.iterdir()) == [folder.name, f"{folder.name}.origin.json"]
    assert pinned_models(location)[1]["registered_version"] == "1"


def test_executor_that_was_sent_nothing_asks_the_registry(location, sent, student_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("MKDM_CACHE", str(tmp_path / "executor"))
    receive(location)
    assert model_version(model_folders(location)[0]) == model_version(student_folder)


def test_version_that_another_registry_has_is_not_taken_for_it(location, sent, student_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("MKDM_CACHE", str(tmp_path / "executor"))
    register(student_folder, Registration("student", None, f"file:{tmp_path}/others"), {}, {})
    mlflow.set_tracking_uri(f"file:{tmp_path}/others")
    with pytest.raises(ModelError, match="models:/student/1 is another model now, or another registry's"):
        model_folders(location)
    assert Path(tmp_path / "executor").is_dir()
