"""The zoo of teachers: a YAML file that says which models label pairs, and how each is run. Needs no torch."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from mkdm.errors import ConfigError
from mkdm.model.fetch import is_uri

_PRECISIONS = ("auto", "fp32", "bf16", "fp16", "int8")
_EXAMPLE = "teachers: [{id: bge, model: DIR, max_tokens: 256, precision: auto}]"


@dataclass(frozen=True)
class Teacher:
    """One teacher of a zoo.

    Attributes:
        id: names the teacher in `soft_labels` and in the student's headers.
        model: its folder or URI, or several joined by commas for an average of several models.
        max_tokens: tokens of a pair at most; None as the model was trained.
        precision: auto, fp32, bf16, fp16 or int8.
    """

    id: str
    model: str
    max_tokens: int | None = None
    precision: str = "auto"


def read_zoo(path: str | Path) -> list[Teacher]:
    """Read a zoo: a mapping with the key `teachers`, a list of id, model, and perhaps max_tokens and precision.

    A folder that is not absolute is taken from where the file lies.

    Raises:
        ConfigError: no such file, no YAML, or an entry that is wrong; the text names the entry.
    """
    try:
        content = yaml.safe_load(Path(path).read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read the zoo {path}: {' '.join(str(error).split())}") from error
    entries = content.get("teachers") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not entries:
        raise ConfigError(f"{path} holds no list of teachers: it must look like {_EXAMPLE}")
    teachers = [
        _teacher(entry, f"teacher {number} of {path}", Path(path).parent) for number, entry in enumerate(entries, 1)
    ]
    ids = [teacher.id for teacher in teachers]
    twice = sorted({one for one in ids if ids.count(one) > 1})
    if twice:
        raise ConfigError(f"{path} has several teachers with the id {twice[0]}: give each its own")
    return teachers


def _teacher(entry: Any, where: str, folder: Path) -> Teacher:
    known = [field.name for field in fields(Teacher)]
    if not isinstance(entry, dict) or not {"id", "model"} <= entry.keys() <= set(known):
        has = ", ".join(map(str, entry)) if isinstance(entry, dict) else repr(entry)
        raise ConfigError(f"{where} has {has}; it takes id, model, max_tokens, precision, and needs the first two")
    name, model, tokens, precision = (entry.get(key, None) for key in known)
    if not isinstance(name, str) or not name or "," in name:
        raise ConfigError(f"{where} has the id {name!r}: it must be a text without a comma")
    if not isinstance(model, str) or not model:
        raise ConfigError(f"{where} has the model {model!r}: it must be a folder")
    if tokens is not None and (not isinstance(tokens, int) or isinstance(tokens, bool) or tokens < 1):
        raise ConfigError(f"{where} has max_tokens {tokens!r}: it must be a number of at least 1")
    if precision not in (None, *_PRECISIONS):
        raise ConfigError(f"{where} has the precision {precision!r}: choose one of {', '.join(_PRECISIONS)}")
    parts = map(str.strip, model.split(","))
    folders = ",".join(part if is_uri(part) else str(folder / part) for part in parts)
    return Teacher(name, folders, tokens, precision or "auto")
