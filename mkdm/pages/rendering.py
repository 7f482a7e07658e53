"""Fills the templates of pages: every value is text, unless a template says otherwise, and none may be missing."""

import math
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


def number(value: float, digits: int = 3, sign: bool = False) -> str:
    """A figure as it is shown; – for NaN."""
    if math.isnan(value):
        return "–"
    return f"{value:{'+' if sign else ''}.{digits}f}".replace("-", "−")


def render(template: str, **values: Any) -> str:
    """A template of mkdm/pages/templates, filled.

    Raises:
        jinja2.UndefinedError: the template has a name that is not among the values.
    """
    return _environment().get_template(template).render(values)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("mkdm.pages"),  # from a folder and from a zip
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["number"] = number
    environment.tests["nan"] = math.isnan
    return environment
