"""Takes a line of a JSON Lines file apart: an object's values as text, as they were written."""

import json
from typing import Any

IDS = frozenset({"query_id", "passage_id", "doc_id", "_id"})
TEXTS = frozenset({"query", "passage", "text"})
FLAGS = frozenset({"golden_label"})
"""Columns in which true is 1 and false is 0."""


class _Whole(str):
    """A number without a fraction, as it was written."""


class _Real(str):
    """A number with one."""


class RowFault(ValueError):
    """A line that is no row; its text says why."""


def read_object(line: bytes) -> dict[str, Any]:
    """The object of a line; numbers as they were written, to be given to `value_text`.

    Raises:
        UnicodeDecodeError: the line is not UTF-8.
        RowFault: it is no JSON object, or has a name twice.
    """
    try:
        found = json.loads(
            line.decode(),
            parse_int=_Whole,
            parse_float=_Real,
            parse_constant=_no_constant,
            object_pairs_hook=_once,
        )
    except json.JSONDecodeError as error:
        raise RowFault(f"is not JSON ({error.msg} at character {error.pos + 1})") from None
    except RecursionError:
        raise RowFault("is nested too deeply") from None
    if not isinstance(found, dict):
        raise RowFault(f"is {_kind(found)} and not an object")
    return found


def value_text(name: str, value: Any) -> str | None:
    """A value of an object as text; None for null.

    Raises:
        RowFault: an id that is neither text nor a whole number, or a text that is something else.
        UnicodeEncodeError: it has half of a character (a lone surrogate).
    """
    if value is None:
        return None
    if name in IDS and (not isinstance(value, str) or isinstance(value, _Real)):
        raise RowFault(f"{name} is {_kind(value)}; it must be text or a whole number")
    if name in TEXTS and (not isinstance(value, str) or isinstance(value, (_Whole, _Real))):
        raise RowFault(f"{name} is {_kind(value)}; it must be text")
    if isinstance(value, bool):
        text = str(int(value)) if name in FLAGS else str(value).lower()
    else:
        text = str(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text.encode()
    return text


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise RowFault(f"has {next(name for name in names if names.count(name) > 1)} twice")
    return found


def _no_constant(name: str) -> Any:
    raise RowFault(f"is not JSON ({name} is no number)")


def _kind(value: Any) -> str:
    if isinstance(value, (_Whole, _Real)):
        return "a number"
    names = {str: "text", dict: "an object", list: "an array", bool: "true or false"}
    return names.get(type(value), "null")
