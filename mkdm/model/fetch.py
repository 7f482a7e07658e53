"""Model folders wherever they are: on this machine, or at a URI such as s3a://bucket/model, which is copied here once.

A copy is whole or not there, is checked before it is used, and is made once per host, however many executors ask.
"""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import fsspec

from mkdm.errors import ModelError, refuse_credentials
from mkdm.model.copies import cache, one_at_a_time, told
from mkdm.model.hub_cache import snapshot
from mkdm.model.pinning import copy_of, is_kept

_OTHER_NAMES = {"s3a": "s3", "s3n": "s3", "wasb": "abfs", "wasbs": "abfs", "abfss": "abfs", "gcs": "gs"}
"""Schemes that Hadoop and fsspec spell otherwise."""
_DRIVERS = {"s3": ("s3fs", "s3"), "abfs": ("adlfs", "abfs"), "gs": ("gcsfs", "gs")}
"""By scheme, the package that reads it and the extra of ours that installs it."""
_DBFS = "dbfs:/"


def is_uri(location: str) -> bool:
    """Whether a model's location is no plain path."""
    return "://" in location or location.startswith(_DBFS) or is_kept(location)


def folder_of(location: str | Path, check: Callable[[Path], object] | None = None) -> Path:
    """The folder on this machine for a path, a URI, or Databricks' dbfs:/Volumes/…, which is mounted there.

    A model's id on the Hugging Face hub is the snapshot of it in the hub's cache; see `hub_cache.snapshot`. For what a
    registry or the hub keeps see `pinning`.

    Args:
        check: looks at a copy before it is used, and raises a ModelError where it is not as it should be.

    Raises:
        ConfigError: the URI holds credentials.
        ModelError: the URI cannot be read, has no file or one whose name leads out of the folder, or its copy does not
            pass the check.
    """
    text = str(location)
    if text.startswith(_DBFS):
        inside = text.removeprefix("dbfs:").lstrip("/")
        return Path("/", inside) if inside.split("/")[0] == "Volumes" else Path("/dbfs", inside)
    if is_kept(text):
        return copy_of(text, check)
    return local_folder(text, check) if is_uri(text) else snapshot(text)


def local_folder(uri: str, check: Callable[[Path], object] | None = None) -> Path:
    """The folder on this machine that holds what is at a URI now; fetched unless it is there.

    What is there is told by names, sizes and whatever the file system says of each file's version, so that a model
    that was replaced is fetched anew. Copies lie in $MKDM_CACHE, or in this user's own temporary folder.

    Raises:
        ConfigError, ModelError: as for `folder_of`.
    """
    refuse_credentials(uri, "the location of a model")
    system, path, files = _listing(uri)
    stamps = [
        [name, *(str(info.get(key)) for key in ("size", "ETag", "etag", "mtime", "created", "LastModified"))]
        for name, info in sorted(files.items())
    ]
    key = hashlib.sha256(repr((uri, stamps)).encode()).hexdigest()[:16]
    folder = cache() / key
    names = {name: name.removeprefix(path.rstrip("/") + "/") for name in files}
    sizes = {names[name]: info.get("size") for name, info in files.items()}
    if _whole(folder, sizes):
        return folder
    with one_at_a_time(folder.parent):
        if not _whole(folder, sizes):  # or else another process was first
            shutil.rmtree(folder, ignore_errors=True)
            _fetch(system, names, folder, uri, check)
    return folder


def _listing(uri: str) -> tuple[Any, str, dict[str, dict[str, Any]]]:
    """The file system of a URI, the path there, and what it says of each file below."""
    scheme, _, rest = uri.partition("://")
    scheme = _OTHER_NAMES.get(scheme, scheme)
    try:
        system, path = fsspec.core.url_to_fs(f"{scheme}://{rest}")
        system.invalidate_cache()  # or a replaced model would not be noticed in this process
        files = {name: info for name, info in system.find(path, detail=True).items() if info["type"] == "file"}
        if not files and scheme in _DRIVERS and not system.exists(bucket := path.split("/")[0]):
            raise ModelError(f"cannot read {uri}: there is no bucket or container {bucket}, or it is not open to you")
    except ImportError as error:
        package, extra = _DRIVERS.get(scheme, (f"for {scheme}://", ""))
        install = f"pip install 'mkdm[{extra}]', and mkdm pack --extras {extra}" if extra else "install it"
        raise ModelError(
            f"cannot read {uri}: the fsspec driver {package} is missing on this machine: {install}"
        ) from error
    except ModelError:
        raise
    except Exception as error:  # each driver has errors of its own, such as botocore's for missing credentials
        raise ModelError(f"cannot read {uri}: {told(error)}") from error
    if not files:
        raise ModelError(f"no model at {uri}: there is no file below it")
    for name in files:
        inside = name.removeprefix(path.rstrip("/") + "/")
        if ".." in Path(inside).parts or Path(inside).is_absolute():  # a bucket takes any name
            raise ModelError(f"{uri} has a file named {inside!r}, which leads out of the model's folder")
    return system, path, files


def _fetch(system: Any, names: dict[str, str], folder: Path, uri: str, check: Callable[[Path], object] | None) -> None:
    part = folder.with_name(f"{folder.name}.{uuid4().hex}.part")
    try:
        for name, inside in names.items():
            target = part / inside
            target.parent.mkdir(parents=True, exist_ok=True)
            system.get_file(name, str(target))
        if check is not None:
            check(part)
        part.rename(folder)
    except ModelError as error:
        raise ModelError(f"what was fetched is not kept: {str(error).replace(str(part), uri)}") from error
    except Exception as error:
        raise ModelError(f"cannot fetch {uri} to {folder}: {told(error)}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _whole(folder: Path, sizes: dict[str, int | None]) -> bool:
    """Whether every file is there, with its size where that is known."""
    try:
        return all((folder / name).stat().st_size == size or size is None for name, size in sizes.items())
    except OSError:
        return False
