"""Models that a registry or the hub keeps: looked up once, pinned to a version, and copied here under a key.

The driver pins; what it pins is a location such as models:/student/7#3fa9c0d1e2b45678@champion, whose key stands for
that version in that registry. Executors take the copy of that key, which the driver sends them (`udfs.shipping`).
"""

import hashlib
import json
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

from mkdm.errors import ModelError
from mkdm.model import hub, registry
from mkdm.model.copies import ALIAS, Found, cache, one_at_a_time, told

Check = Callable[[Path], object]
_FINDERS: dict[str, Callable[[str], Found]] = {
    "models:/": registry.find,
    "runs:/": registry.find,
    "hf://": hub.find,
}
_PINNED = re.compile(r"^(?P<uri>.+)#(?P<key>[0-9a-f]{16})(?:@(?P<alias>[^@]+))?$")


def is_kept(location: str) -> bool:
    """Whether a location names a model of a registry or of the hub."""
    return location.startswith(tuple(_FINDERS))


def pin(location: str, check: Check | None = None) -> tuple[str, dict[str, str]]:
    """The location at a version that does not move, with a copy of it here, and where it came from.

    Args:
        location: models:/NAME@ALIAS, models:/NAME/VERSION, runs:/RUN/PATH, hf://OWNER/NAME[@REVISION], or what this
            returned.

    Returns:
        The pinned location, and what `runs` tells of it: MODEL, VERSION, RUN and ALIAS of `copies`.

    Raises:
        ModelError: there is no such model, it cannot be had, or is none of ours.
    """
    pinned = _PINNED.match(location)
    if pinned is None or not _folder(pinned["key"]).is_dir():
        location = _fetched(location, check)
        pinned = _PINNED.match(location)
        assert pinned is not None
    origin = json.loads(_record(pinned["key"]).read_text())
    return location, origin | ({ALIAS: pinned["alias"]} if pinned["alias"] else {})


def copy_of(location: str, check: Check | None = None) -> Path:
    """The folder on this machine with what a location names; fetched unless it is there.

    Raises:
        ModelError: as for `pin`.
    """
    pinned = _PINNED.match(pin(location, check)[0])
    assert pinned is not None
    return _folder(pinned["key"])


def packed(location: str) -> Path:
    """A .zip file of the copy of a pinned location, made once; its name has the key."""
    folder = copy_of(location)
    archive = folder.with_name(f"{folder.name}.zip")
    if not archive.exists():
        part = folder.with_name(f"{folder.name}.{uuid4().hex}.part")
        files = [(path, str(path.relative_to(folder))) for path in sorted(folder.rglob("*")) if path.is_file()]
        with zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archived:
            for path, name in [(_record(folder.name), _RECORD), *files]:
                archived.write(path, name)
        part.rename(archive)
    return archive


def unpack(location: str, find: Callable[[str], Path]) -> None:
    """Make the copy of a pinned location out of what `packed` made, unless it is here.

    Args:
        find: where on this machine the file of that name is; it need not be there.
    """
    pinned = _PINNED.match(location)
    if pinned is None or _folder(pinned["key"]).is_dir():
        return
    archive = find(f"{pinned['key']}.zip")
    if not archive.exists():
        return

    def extract(part: Path) -> None:
        with zipfile.ZipFile(archive) as archived:
            archived.extractall(part)
        (part / _RECORD).rename(_record(pinned["key"]))

    _keep(pinned["key"], location, extract, None)


def _fetched(location: str, check: Check | None) -> str:
    """Look a location up, copy what it names here unless that is there, and pin it."""
    asked = _PINNED.match(location)
    uri, alias = (asked["uri"], asked["alias"]) if asked else (location, None)
    find = next(find for start, find in _FINDERS.items() if uri.startswith(start))
    found = find(uri)
    key = hashlib.sha256(repr((found.uri, found.stamps)).encode()).hexdigest()[:16]
    if asked and key != asked["key"]:
        raise ModelError(
            f"{uri} is another model now, or another registry's, than the driver found: start the run again"
        )

    def fetch(part: Path) -> None:
        found.fetch(part)
        _record(key).write_text(json.dumps(found.origin))

    _keep(key, found.uri, fetch, check)
    alias = alias or found.alias
    return f"{found.uri}#{key}" + (f"@{alias}" if alias else "")


def _keep(key: str, uri: str, fill: Callable[[Path], None], check: Check | None) -> None:
    """Make the folder of a key, whole or not at all, by the first process of this host that asks."""
    folder = _folder(key)
    if folder.is_dir():
        return
    with one_at_a_time(folder.parent):
        if folder.is_dir():
            return
        part = folder.with_name(f"{key}.{uuid4().hex}.part")
        part.mkdir()
        try:
            fill(part)
            if check is not None:
                check(part)
            part.rename(folder)
        except ModelError as error:
            raise ModelError(str(error).replace(str(part), uri)) from error
        except OSError as error:
            raise ModelError(f"cannot fetch {uri} to {folder}: {told(error)}") from error
        finally:
            shutil.rmtree(part, ignore_errors=True)


_RECORD = ".origin.json"


def _folder(key: str) -> Path:
    return cache() / key


def _record(key: str) -> Path:
    return cache() / f"{key}{_RECORD}"
