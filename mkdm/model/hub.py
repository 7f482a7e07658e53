"""Models of the Hugging Face hub by hf://owner/name[@revision]: that scheme is the leave to download.

Only safetensors and the files of config and tokenizer are taken, at a commit; no code that a model brings.
"""

import os
import re
import shutil
from pathlib import Path
from typing import Any

from mkdm.errors import ModelError
from mkdm.model.copies import MODEL, VERSION, Found, told

_URI = re.compile(r"^hf://(?P<id>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@(?P<revision>[\w./-]+))?$")
_COMMIT = re.compile(r"^[0-9a-f]{40}$")
_TAKEN = ["*.json", "*.safetensors", "*.jinja", "vocab.txt", "merges.txt", "*.model", "README.md"]
_LEFT = ["*/*"]
"""Folders of other formats, such as onnx/ and openvino/."""


def find(uri: str) -> Found:
    """The model of a URI at the commit that its revision, or the main branch, names now.

    Raises:
        ModelError: it is no such URI, there is no such model or revision, or none that is open to this user; or the hub
            is not reached and this machine's cache has it not.
    """
    match = _URI.match(uri)
    if match is None:
        raise ModelError(f"{uri} is no model of the hub: give hf://owner/name or hf://owner/name@revision")
    from huggingface_hub.errors import HfHubHTTPError  # takes part of a second, and few ask

    try:
        snapshot = Path(_download(match["id"], match["revision"] or "main"))
    except HfHubHTTPError as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status in (401, 403):
            raise ModelError(
                f"{uri} is not open to you, or not there: log in with hf auth login, or set HF_TOKEN, after its terms "
                f"are accepted on its page"
            ) from error
        if status == 404:
            raise ModelError(f"the hub has no model or revision {uri}: check the spelling") from error
        raise ModelError(f"cannot fetch {uri}: {told(error)}") from error
    except Exception as error:  # of whatever huggingface_hub asks through: offline, not reached, no space
        offline = ": HF_HUB_OFFLINE is set" if os.environ.get("HF_HUB_OFFLINE", "0").upper() in _TRUE else ""
        raise ModelError(f"cannot fetch {uri}, and the cache here has it not{offline} ({told(error)[:200]})") from error
    commit = snapshot.name
    if not _COMMIT.match(commit):
        raise ModelError(f"{snapshot} is no snapshot of a commit: remove it, and fetch the model again")
    name = f"hf://{match['id']}"
    return Found(f"{name}@{commit}", (), {MODEL: name, VERSION: commit}, "", lambda part: _copy(snapshot, part))


_TRUE = ("1", "ON", "YES", "TRUE")


def _download(model: str, revision: str) -> Any:
    from huggingface_hub import snapshot_download

    return snapshot_download(model, revision=revision, allow_patterns=_TAKEN, ignore_patterns=_LEFT)


def _copy(snapshot: Path, part: Path) -> None:
    """Link the files of a snapshot, or copy them where that cannot be."""
    for path in snapshot.iterdir():
        if path.is_file():
            try:
                os.link(path.resolve(), part / path.name)
            except OSError:
                shutil.copyfile(path, part / path.name)
