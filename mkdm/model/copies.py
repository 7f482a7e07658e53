"""Copies of models on this machine: where they lie, and that one process makes each."""

import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mkdm.errors import ModelError

CACHE_VARIABLE = "MKDM_CACHE"
MODEL, VERSION, ALIAS, RUN = (f"registered_{name}" for name in ("model", "version", "alias", "run"))
"""What `runs` tells of where a model came from; all of it starts with registered_."""


@dataclass(frozen=True)
class Found:
    """A model that a registry or the hub keeps, at a version that does not move.

    Attributes:
        uri: names that version.
        stamps: what tells it from another of that name, such as the registry that has it.
        origin: MODEL, VERSION, and RUN where a run made it.
        alias: by which it was asked for, if any.
        fetch: writes its files into a folder that is there.
    """

    uri: str
    stamps: tuple[str, ...]
    origin: dict[str, str]
    alias: str
    fetch: Callable[[Path], None]


def cache() -> Path:
    """The folder of the copies: $MKDM_CACHE, or this user's own temporary folder.

    Raises:
        ModelError: it cannot be made, or belongs to another user.
    """
    named = os.environ.get(CACHE_VARIABLE)
    folder = Path(named) if named else Path(tempfile.gettempdir(), f"mkdm_models_{os.getuid()}")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.stat().st_uid != os.getuid() and not named:  # whoever made it could put another model there
            raise ModelError(f"{folder} belongs to another user: set {CACHE_VARIABLE} to a folder of yours")
    except OSError as error:
        raise ModelError(f"cannot keep models in {folder} ({told(error)}): set {CACHE_VARIABLE}") from error
    return folder


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Lets one process of this host through at a time. The system frees the lock of a process that dies."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def told(error: Exception) -> str:
    """An error's text on one line, or its name."""
    return " ".join(str(error).split()) or type(error).__name__
