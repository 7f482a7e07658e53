"""Models of the hub by hf://, from a server on this machine: each test asks in a process that may be online."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hub_server import COMMIT, ID, hub_server

from mkdm.model.folder import model_version

PINNED = """
import json, sys
from mkdm.errors import MkdmError
from mkdm.model.folder import model_folders, model_version, pinned_models
try:
    location, origin = pinned_models(sys.argv[1])
    (folder,) = model_folders(location)
    files = sorted(path.name for path in folder.iterdir())
    print(json.dumps([location, origin, model_version(folder), files]))
except MkdmError as error:
    print(json.dumps(str(error)))
"""


@pytest.fixture
def pinned(tmp_path):
    """Asks for a location in a process of its own, whose environment is as given."""

    def ask(location, **environment):
        env = {**os.environ, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "hf"), "MKDM_CACHE": str(tmp_path / "c")}
        env |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", **environment}
        command = [sys.executable, "-c", PINNED, location]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return ask


def test_model_is_fetched_at_a_commit_and_without_its_code(pinned, student_folder, tmp_path):
    model = Path(shutil.copytree(student_folder, tmp_path / "model"))
    (model / "modeling_own.py").write_text("raise SystemExit('remote code ran')")
    (model / "pytorch_model.bin").write_bytes(b"pickle")
    (model / "onnx").mkdir()
    (model / "onnx" / "config.json").write_text("{}")
    asked: list[str] = []
    with hub_server(model, asked) as endpoint:
        location, origin, version, files = pinned(f"hf://{ID}@v1", HF_ENDPOINT=endpoint)
        refused = pinned("hf://owner/gated", HF_ENDPOINT=endpoint)
        unknown = pinned(f"hf://{ID}@v9", HF_ENDPOINT=endpoint)
    assert location.startswith(f"hf://{ID}@{COMMIT}#")
    assert origin == {"registered_model": f"hf://{ID}", "registered_version": COMMIT}
    assert version == model_version(student_folder)
    assert files == sorted(path.name for path in Path(student_folder).iterdir())
    assert not [path for path in asked if path.endswith((".py", ".bin")) or "/onnx/" in path]
    assert "is not open to you, or not there: log in with hf auth login" in refused
    assert f"the hub has no model or revision hf://{ID}@v9" in unknown
    again = pinned(location, HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path / "empty"))
    assert again == [location, origin, version, files]
    cached = pinned(f"hf://{ID}@{COMMIT}", HF_HUB_OFFLINE="1", MKDM_CACHE=str(tmp_path / "other"))
    assert cached == [location, origin, version, files]
    assert "HF_HUB_OFFLINE is set" in pinned(f"hf://{ID}", HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path / "empty"))


def test_what_is_no_hub_location(pinned):
    assert pinned("hf://reranker") == (
        "hf://reranker is no model of the hub: give hf://owner/name or hf://owner/name@revision"
    )
