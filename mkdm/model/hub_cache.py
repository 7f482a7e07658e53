"""Models by their id on the Hugging Face hub, such as org/name, where the hub's cache on this machine has them."""

import os
import re
from pathlib import Path

from mkdm.errors import ModelError

_ID = re.compile(r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")


def snapshot(location: str) -> Path:
    """The folder of a model: the location itself, or the snapshot of a hub id, or of a folder models--org--name.

    Raises:
        ModelError: a cache folder without a snapshot, or with several and none named by refs/main.
    """
    folder = Path(location)
    if folder.name.startswith("models--") and (folder / "snapshots").is_dir():
        return _newest(folder)
    if folder.exists() or not _ID.match(location):
        return folder
    cached = _hub() / f"models--{location.replace('/', '--')}"
    return _newest(cached) if (cached / "snapshots").is_dir() else folder


def how_to_get(location: str) -> str | None:
    """What to do about a location where nothing is, if it may be a hub id."""
    if not _ID.match(location) or Path(location).parent.is_dir():  # else a path whose last part is misspelt
        return None
    name = location.rpartition("/")[2]
    return (
        f"no folder {location}, and no model of that id in {_hub()}: nothing is downloaded here; run hf download "
        f"{location} --local-dir {name}, then pass --model {name}"
    )


def _hub() -> Path:
    """Where huggingface_hub keeps its cache."""
    named = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    if named:
        return Path(named).expanduser()
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("HF_HOME") or Path(caches, "huggingface")).expanduser() / "hub"


def _newest(folder: Path) -> Path:
    """The snapshot that refs/main names, or else the only one."""
    main, snapshots = folder / "refs" / "main", sorted(path for path in (folder / "snapshots").iterdir())
    if main.is_file() and (named := folder / "snapshots" / main.read_text().strip()) in snapshots:
        return named
    if len(snapshots) == 1:
        return snapshots[0]
    raise ModelError(
        f"{folder} has {len(snapshots)} snapshots and refs/main names none of them: pass the folder of one"
    )
