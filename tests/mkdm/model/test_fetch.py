import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mkdm.errors import ModelError
from mkdm.model.fetch import folder_of, local_folder
from mkdm.model.folder import model_version, models_version
from mkdm.model.tokenizer import load_tokenizer
from mkdm.scoring.ensemble import load_scorer


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
    assert list((tmp_path / "cache" / f"mkdm_models_{os.getuid()}").iterdir()) == [first]
    (tmp_path / "model" / "vocab.txt").write_text("another")
    assert local_folder(uri) != first


def test_fetch_that_breaks_leaves_nothing(student_folder, tmp_path, monkeypatch):
    def full(self, *args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fsspec.implementations.local.LocalFileSystem.get_file", full)
    with pytest.raises(ModelError, match=r"cannot fetch file://.* No space left on device"):
        local_folder(f"file://{student_folder}")
    assert list((tmp_path / "cache" / f"mkdm_models_{os.getuid()}").iterdir()) == []


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


COUNTED = """
import sys, time
from fsspec.implementations.local import LocalFileSystem
from mkdm.model import models_version
plain = LocalFileSystem.get_file
def counted(self, name, target, **options):
    with open(sys.argv[2], "a") as log:
        log.write(name + "\\n")
    time.sleep(0.05)
    plain(self, name, target, **options)
LocalFileSystem.get_file = counted
print(models_version(sys.argv[1]))
"""


def test_processes_of_a_host_fetch_a_model_once(student_folder, tmp_path):
    env = {**os.environ, "MKDM_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-c", COUNTED, f"file://{student_folder}", str(tmp_path / "log")]
    running = [subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert {process.communicate()[0].strip() for process in running} == {model_version(student_folder)}
    fetched = (tmp_path / "log").read_text().splitlines()
    assert sorted(fetched) == sorted(map(str, Path(student_folder).iterdir()))


def test_fetch_waits_for_the_process_that_holds_the_lock(student_folder, tmp_path):
    env = {**os.environ, "MKDM_CACHE": str(tmp_path / "cache")}
    command = [
        sys.executable,
        "-c",
        f"from mkdm.model.fetch import local_folder; local_folder('file://{student_folder}')",
    ]
    handle = os.open(tmp_path / "cache", os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    process = subprocess.Popen(command, env=env)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=3)
    os.close(handle)
    assert process.wait(timeout=60) == 0


def test_copy_that_differs_from_its_manifest_is_refused_and_not_kept(student_folder, tmp_path):
    folder = shutil.copytree(student_folder, tmp_path / "model")
    with open(folder / "model.safetensors", "r+b") as weights:
        weights.seek(-1, os.SEEK_END)
        weights.write(b"?")
    uri = f"file://{folder}"
    with pytest.raises(ModelError, match=rf"not kept: model\.safetensors in {uri} has changed since it was saved"):
        models_version(uri)
    assert list((tmp_path / "cache" / f"mkdm_models_{os.getuid()}").iterdir()) == []


def test_copy_that_lost_a_file_is_fetched_again(student_folder):
    uri = f"file://{student_folder}"
    (local_folder(uri) / "config.json").unlink()
    assert models_version(uri) == model_version(student_folder)


def test_tokenizer_at_a_uri(student_folder):
    here = load_tokenizer(student_folder)
    assert load_tokenizer(f"file://{student_folder}").get_vocab() == here.get_vocab()


@pytest.mark.parametrize(
    ("location", "folder"),
    [("dbfs:/Volumes/main/qa/m", "/Volumes/main/qa/m"), ("dbfs:/m", "/dbfs/m"), ("models/m", "models/m")],
)
def test_places_that_are_mounted(location, folder):
    assert folder_of(location) == Path(folder)


def test_missing_driver_names_the_package_and_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)  # as if it were not installed
    with pytest.raises(ModelError, match=r"driver gcsfs is missing on this machine: pip install 'mkdm\[gs\]'"):
        local_folder("gs://bucket/model")
