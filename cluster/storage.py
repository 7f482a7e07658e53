"""Files and folders as a session finds them: by Hadoop where it has a JVM, over Spark Connect by fsspec, from here.

Over Connect a path means the same storage to this machine and to Spark's: a shared folder, a mount or an object store.
"""

import contextlib
import hashlib
import os
import re
from dataclasses import dataclass
from typing import Any, Protocol

import fsspec

URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
_AUTHORITY = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://[^/]*")
_OTHER_NAMES = {"s3a": "s3", "s3n": "s3", "wasb": "abfs", "wasbs": "abfs", "abfss": "abfs", "gcs": "gs"}
"""Schemes that Hadoop and fsspec spell otherwise."""
_MOUNTED = "dbfs:/Volumes/"
_BRACES = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True)
class Entry:
    """A file or folder.

    Attributes:
        path: absolute, as Hadoop writes it: file:/a/b, s3a://bucket/b.
        size: bytes of a file.
    """

    path: str
    is_folder: bool
    size: int

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rstrip("/").rpartition("/")[2]

    @property
    def parent(self) -> str:
        """The path of the folder that it is in."""
        return self.path.rstrip("/").rpartition("/")[0]


class Storage(Protocol):
    """What the engine asks of a file system. Locations are paths, relative ones too, or URIs.

    Raises:
        OSError, Py4JError: what the file system says.
    """

    def qualified(self, location: str) -> str:
        """The location as a full URI."""

    def exists(self, location: str) -> bool:
        """Whether a file or folder is there."""

    def entry(self, location: str) -> Entry:
        """What is there."""

    def children(self, location: str) -> list[Entry]:
        """What is in a folder."""

    def matches(self, pattern: str) -> list[Entry]:
        """What a pattern matches."""

    def sha256(self, path: str) -> str:
        """SHA-256 of a file's bytes, in hex."""

    def read_text(self, location: str) -> str:
        """A file's text, in UTF-8."""

    def write_text(self, location: str, text: str) -> None:
        """Write a file, in the place of one that is there."""

    def rename(self, location: str, to: str) -> bool:
        """Give a file another name; whether that was done."""

    def delete(self, location: str) -> None:
        """Remove a file, or a folder with all that is in it; nothing happens where none is."""


class FsspecStorage:
    """Storage without a JVM; see `Storage`."""

    def qualified(self, location: str) -> str:
        if location.startswith(_MOUNTED):
            location = location.removeprefix("dbfs:")
        if not URI.match(location):
            return f"file:{os.path.abspath(location)}"
        return re.sub("^file:/+", "file:/", location)

    def exists(self, location: str) -> bool:
        system, path, _ = self._at(location)
        return bool(system.exists(path))

    def entry(self, location: str) -> Entry:
        system, path, root = self._at(location)
        return _entry(system.info(path), root)

    def children(self, location: str) -> list[Entry]:
        system, path, root = self._at(location)
        found = [one for one in system.ls(path, detail=True) if one["name"].rstrip("/") != path.rstrip("/")]
        return [_entry(one, root) for one in (_followed(system, one) for one in found) if one["type"] != "other"]

    def matches(self, pattern: str) -> list[Entry]:
        if (braces := _BRACES.search(pattern)) is not None:
            before, after = pattern[: braces.start()], pattern[braces.end() :]
            return [found for one in braces[1].split(",") for found in self.matches(f"{before}{one}{after}")]
        system, path, root = self._at(pattern)
        return [_entry(_followed(system, one), root) for _, one in sorted(system.glob(path, detail=True).items())]

    def sha256(self, path: str) -> str:
        system, inside, _ = self._at(path)
        with system.open(inside, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    def read_text(self, location: str) -> str:
        system, path, _ = self._at(location)
        return str(system.read_text(path, encoding="utf-8", newline=""))

    def write_text(self, location: str, text: str) -> None:
        system, path, _ = self._at(location)
        system.makedirs(path.rpartition("/")[0], exist_ok=True)
        system.pipe_file(path, text.encode())

    def rename(self, location: str, to: str) -> bool:
        system, path, _ = self._at(location)
        system.mv(path, self._at(to)[1])
        return True

    def delete(self, location: str) -> None:
        system, path, _ = self._at(location)
        if system.exists(path):
            system.rm(path, recursive=True)

    def _at(self, location: str) -> tuple[Any, str, tuple[str, str]]:
        """The file system, the path in it, and how that is made a URI again: what is put for its beginning."""
        uri = self.qualified(location)
        if uri.startswith("file:"):
            return fsspec.filesystem("file", use_listings_cache=False), uri.removeprefix("file:"), ("", "file:")
        scheme = uri.partition(":")[0]
        try:
            system = fsspec.filesystem(_OTHER_NAMES.get(scheme, scheme), use_listings_cache=False)
        except (ImportError, ValueError) as error:
            advice = "" if isinstance(error, ImportError) else ": give a folder, or a URI whose scheme it knows"
            raise OSError(f"over Spark Connect this machine reads it by fsspec, which says: {error}{advice}") from error
        authority = _AUTHORITY.match(uri)
        root = authority[0] if authority else f"{scheme}:"
        return system, system._strip_protocol(uri), (system._strip_protocol(f"{root}/x").removesuffix("/x"), root)


def _followed(system: Any, found: dict[str, Any]) -> dict[str, Any]:
    """What a link of a local folder leads to, which a listing does not tell; of one to nothing what was found."""
    with contextlib.suppress(OSError):
        return dict(system.info(found["name"])) if found.get("islink") else found
    return found


def _entry(found: dict[str, Any], root: tuple[str, str]) -> Entry:
    path = f"{root[1]}{found['name'].removeprefix(root[0])}"
    return Entry(path.rstrip("/"), found["type"] == "directory", int(found["size"] or 0))
