"""Model folders at URIs, such as s3a://bucket/model: copied to this machine once, whole or not at all."""

import hashlib
import shutil
import tempfile
from pathlib import Path
from uuid import uuid4

import fsspec

from mkdm.credentials import has_credentials
from mkdm.errors import ModelError

_OTHER_NAMES = {"s3a": "s3", "s3n": "s3", "wasbs": "abfs", "abfss": "abfs"}
"""Schemes that Hadoop and fsspec spell otherwise."""


def is_uri(location: str) -> bool:
    """Whether a model's location is no plain path."""
    return "://" in location


def local_folder(uri: str) -> Path:
    """The folder on this machine that holds what is at a URI now; fetched unless it is there.

    What is there is told by names, sizes and whatever the file system says of each file's version, so that a model
    that was replaced is fetched anew.

    Raises:
        ModelError: the URI carries credentials, cannot be read, has no file, or one whose name leads out of the folder.
    """
    if has_credentials(uri):
        raise ModelError(f"the model's URI {uri} has credentials in it: give them through the environment or a role")
    scheme, _, rest = uri.partition("://")
    try:
        system, path = fsspec.core.url_to_fs(f"{_OTHER_NAMES.get(scheme, scheme)}://{rest}")
        files = {name: info for name, info in system.find(path, detail=True).items() if info["type"] == "file"}
    except (OSError, ValueError, ImportError) as error:
        raise ModelError(f"cannot read {uri}: {' '.join(str(error).split())}") from error
    if not files:
        raise ModelError(f"no model at {uri}: there is no file below it")
    for name in files:
        inside = name.removeprefix(path.rstrip("/") + "/")
        if ".." in Path(inside).parts or Path(inside).is_absolute():  # a bucket takes any name
            raise ModelError(f"{uri} has a file named {inside!r}, which leads out of the model's folder")
    stamps = [
        [name, *(str(info.get(key)) for key in ("size", "ETag", "mtime", "created", "LastModified"))]
        for name, info in sorted(files.items())
    ]
    key = hashlib.sha256(repr((uri, stamps)).encode()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir(), "mkdm_models", key)
    if folder.exists():
        return folder
    part = folder.with_name(f"{key}.{uuid4().hex}.part")
    try:
        for name in files:
            target = part / name.removeprefix(path.rstrip("/") + "/")
            target.parent.mkdir(parents=True, exist_ok=True)
            system.get_file(name, str(target))
        part.rename(folder)
    except OSError as error:
        shutil.rmtree(part, ignore_errors=True)
        if not folder.exists():  # or else another process of this machine was first
            raise ModelError(f"cannot fetch {uri} to {folder}: {' '.join(str(error).split())}") from error
    return folder
