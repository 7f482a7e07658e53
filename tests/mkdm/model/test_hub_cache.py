import shutil

import pytest

from mkdm.errors import ModelError
from mkdm.model.folder import model_version, models_version
from mkdm.scoring.scorer import Scorer

ID = "cross-encoder/ms-marco-MiniLM-L6-v2"


@pytest.fixture(params=["HF_HOME", "HF_HUB_CACHE"])
def hub(request, tmp_path, monkeypatch):
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.delenv("HUGGINGFACE_HUB_CACHE", raising=False)
    monkeypatch.setenv(request.param, str(tmp_path))
    return tmp_path / "hub" if request.param == "HF_HOME" else tmp_path


@pytest.fixture
def cached(hub, student_folder):
    """A cache as huggingface_hub lays it out: snapshots of links to blobs."""
    folder = hub / "models--cross-encoder--ms-marco-MiniLM-L6-v2"
    shutil.copytree(student_folder, folder / "blobs")
    (folder / "snapshots" / "abc").mkdir(parents=True)
    for blob in (folder / "blobs").iterdir():
        (folder / "snapshots" / "abc" / blob.name).symlink_to(blob)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("abc")
    return folder


def test_id_that_is_in_the_cache(cached, student_folder):
    assert models_version(ID) == models_version(cached) == model_version(student_folder)
    assert Scorer.load(ID, "torch", "fp32").score(["a"], ["b"]) == Scorer.load(student_folder, "torch", "fp32").score(
        ["a"], ["b"]
    )


def test_main_tells_which_of_several_snapshots(cached):
    (cached / "snapshots" / "aaa").mkdir()
    models_version(ID)
    (cached / "refs" / "main").unlink()
    with pytest.raises(ModelError, match="has 2 snapshots and refs/main names none of them"):
        models_version(ID)


def test_id_that_is_not_in_the_cache(hub):
    command = r"hf download cross-encoder/ms-marco-MiniLM-L6-v2 --local-dir ms-marco-MiniLM-L6-v2, then pass --model ms"
    with pytest.raises(ModelError, match=command):
        models_version(ID)


def test_folder_that_is_there_is_no_id(cached, student_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(student_folder, ID)
    (tmp_path / ID / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"lacks model\.safetensors"):
        models_version(ID)
