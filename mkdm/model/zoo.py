"""The zoo of teachers: a YAML file that says which models label pairs, and how each is run. Needs no torch."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from mkdm.errors import ConfigError
from mkdm.model.fetch import is_uri
from mkdm.model.prompting import Prompting

_PRECISIONS = ("auto", "fp32", "bf16", "fp16", "int8")
_BACKENDS = ("auto", "torch", "torch-compile", "openvino")
_EXAMPLE = "teachers: [{id: bge, model: DIR, max_tokens: 256, precision: auto}]"


@dataclass(frozen=True)
class Teacher:
    """One teacher of a zoo.

    Attributes:
        id: names the teacher in `soft_labels` and in the student's headers.
        model: its folder or URI, or several joined by commas for an average of several models.
        max_tokens: tokens of a pair at most; None as the model was trained.
        precision: auto, fp32, bf16, fp16 or int8.
        backend: auto, torch, torch-compile or openvino; None as the command says.
        prompt: see `Prompting`, as for the next two; None as the model says.
        template: the text of a pair, with {query} and {passage} in it.
        label: the label or answer that means relevant.
    """

    id: str
    model: str
    max_tokens: int | None = None
    precision: str = "auto"
    backend: str | None = None
    prompt: str | None = None
    template: str | None = None
    label: str | None = None

    @property
    def prompting(self) -> Prompting:
        """How it is asked."""
        return Prompting(self.prompt, self.template, self.label)


def read_zoo(path: str | Path) -> list[Teacher]:
    """Read a zoo: a mapping with the key `teachers`, a list of what `Teacher` has, of which id and model are needed.

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
        raise ConfigError(f"{where} has {has}; it takes {', '.join(known)}, and needs the first two")
    said: dict[str, Any] = {name: entry.get(name) for name in known}
    name, model, tokens = said["id"], said["model"], said["max_tokens"]
    if not isinstance(name, str) or not name or "," in name:
        raise ConfigError(f"{where} has the id {name!r}: it must be a text without a comma")
    if not isinstance(model, str) or not model:
        raise ConfigError(f"{where} has the model {model!r}: it must be a folder")
    if tokens is not None and (not isinstance(tokens, int) or isinstance(tokens, bool) or tokens < 1):
        raise ConfigError(f"{where} has max_tokens {tokens!r}: it must be a number of at least 1")
    for key, choices in (("precision", _PRECISIONS), ("backend", _BACKENDS)):
        if said[key] not in (None, *choices):
            raise ConfigError(f"{where} has the {key} {said[key]!r}: choose one of {', '.join(choices)}")
    if isinstance(said["label"], int) and not isinstance(said["label"], bool):  # the number of a label
        said["label"] = str(said["label"])
    for key in ("prompt", "template", "label"):
        if said[key] is not None and (not isinstance(said[key], str) or not said[key]):
            raise ConfigError(f"{where} has the {key} {said[key]!r}: it must be a text; quote yes, no, true and false")
    parts = map(str.strip, model.split(","))
    said["model"] = ",".join(part if is_uri(part) else str(folder / part) for part in parts)
    return Teacher(**said | {"precision": said["precision"] or "auto"})
