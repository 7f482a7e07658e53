"""Models at s3a:// through fsspec, from a real S3 server on loopback."""

import pytest
from s3_server import SECRET, s3_server

from mkdm.errors import ModelError
from mkdm.model.fetch import local_folder
from mkdm.model.folder import model_version, models_version
from mkdm.model.zoo import Teacher, read_zoo
from mkdm.scoring.ensemble import load_scorer

pytest.importorskip("moto.server")
s3fs = pytest.importorskip("s3fs")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("s3")
    with s3_server(folder / "log") as variables:
        yield variables, folder / "log"


@pytest.fixture
def bucket(server, monkeypatch, tmp_path, student_folder):
    """A bucket `models` with a student; the environment has its credentials."""
    for name, value in {**server[0], "MKDM_CACHE": str(tmp_path / "cache")}.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    system = s3fs.S3FileSystem()
    system.mkdirs("models", exist_ok=True)
    if system.exists("models/student"):
        system.rm("models/student", recursive=True)
    system.put(student_folder, "models/student", recursive=True)
    yield system
    s3fs.S3FileSystem.clear_instance_cache()


def test_model_is_fetched_once_and_scores_as_here(bucket, server, student_folder):
    uri = "s3a://models/student"
    assert models_version(uri) == model_version(student_folder)
    pair = (["what is a gasket"], ["a seal between two surfaces"])
    there, here = (load_scorer(place, precision="fp32").score(*pair) for place in (uri, student_folder))
    assert there.tolist() == here.tolist()
    gets = [line for line in server[1].read_text().splitlines() if "GET /models/student/model.safetensors" in line]
    assert len(gets) == 1


def test_teacher_of_a_zoo(bucket, tmp_path, student_folder):
    (tmp_path / "zoo.yaml").write_text("teachers: [{id: a, model: 's3a://models/student'}]")
    assert read_zoo(tmp_path / "zoo.yaml") == [Teacher("a", "s3a://models/student")]
    assert models_version(read_zoo(tmp_path / "zoo.yaml")[0].model) == model_version(student_folder)


def test_replaced_and_broken_models(bucket, student_folder):
    first = local_folder("s3a://models/student")
    bucket.pipe("models/student/vocab.txt", b"another")
    assert local_folder("s3a://models/student") != first
    bucket.pipe("models/student/config.json", b"{}")
    with pytest.raises(ModelError, match="s3a://models/student has"):
        models_version("s3a://models/student")


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("s3a://models/nothing", "no model at s3a://models/nothing: there is no file below it"),
        ("s3a://no-such-bucket/m", "cannot read s3a://no-such-bucket/m: .*bucket"),
    ],
)
def test_missing_places(bucket, uri, message):
    with pytest.raises(ModelError, match=message):
        models_version(uri)


def test_no_credentials(bucket, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(ModelError, match=r"cannot read s3a://models/student: .*credentials") as refused:
        models_version("s3a://models/student")
    assert SECRET not in str(refused.value)
