import shutil

import pytest

from mkdm.ensemble import load_scorer
from mkdm.errors import ModelError
from mkdm.fetch import local_folder
from mkdm.model_folder import model_version, models_version


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()


def test_model_at_a_uri_is_fetched_once_and_anew_when_it_is_replaced(student_folder, tmp_path):
    shutil.copytree(student_folder, tmp_path / "model")
    uri = f"file://{tmp_path}/model"
    first = local_folder(uri)
    assert models_version(uri) == model_version(student_folder)
    assert load_scorer(uri, precision="fp32").score(["what is a gasket"], ["a seal"]).shape == (1,)
    assert list((tmp_path / "cache" / "mkdm_models").iterdir()) == [first]
    (tmp_path / "model" / "vocab.txt").write_text("another")
    assert local_folder(uri) != first


def test_fetch_that_breaks_leaves_nothing(student_folder, tmp_path, monkeypatch):
    def full(self, *args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fsspec.implementations.local.LocalFileSystem.get_file", full)
    with pytest.raises(ModelError, match=r"cannot fetch file://.* No space left on device"):
        local_folder(f"file://{student_folder}")
    assert list((tmp_path / "cache" / "mkdm_models").iterdir()) == []


@pytest.mark.parametrize("uri", ["file:///nowhere/at/all", "nosuch://bucket/model"])
def test_uri_that_cannot_be_read(uri):
    with pytest.raises(ModelError, match=r"no model at file|cannot read nosuch"):
        local_folder(uri)


def test_file_whose_name_leads_out_of_the_folder_is_refused(tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    listed = {f"{tmp_path}/model/../../evil": {"type": "file", "size": 1}}
    monkeypatch.setattr("fsspec.implementations.local.LocalFileSystem.find", lambda *args, **kwargs: listed)
    with pytest.raises(ModelError, match=r"a file named '\.\./\.\./evil', which leads out"):
        local_folder(f"file://{tmp_path}/model")
    assert list((tmp_path / "cache").iterdir()) == []
