"""The door of a package: the names that other packages import, each loaded when it is first asked for.

A package's `__init__` imports them under `TYPE_CHECKING`, for readers and type checkers, and has in its other branch
`__all__, __getattr__, __dir__ = door(__name__)`. So a name stands once, and torch is loaded where a name needs it.
(lazy_loader does the same from a stub file, which it cannot read where the engine is imported from a wheel.)
"""

import ast
import inspect
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any


def names_of(source: str) -> dict[str, str]:
    """By name, the module that a package's `__init__` takes it from for type checkers."""
    checked = [node for node in ast.parse(source).body if isinstance(node, ast.If)]
    imports = [node for branch in checked for node in branch.body if isinstance(node, ast.ImportFrom)]
    return {alias.name: str(node.module) for node in imports for alias in node.names}


def door(package: str) -> tuple[list[str], Callable[[str], Any], Callable[[], list[str]]]:
    """`__all__`, `__getattr__` and `__dir__` of a package whose `__init__` is being imported."""
    module = sys.modules[package]
    found = names_of(inspect.getsource(module))

    def load(name: str) -> Any:
        if name not in found:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(found[name]), name)
        setattr(module, name, value)
        return value

    return sorted(found), load, lambda: sorted({*vars(module), *found})
