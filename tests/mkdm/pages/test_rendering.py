import re
from pathlib import Path

import pytest
from jinja2 import UndefinedError

import mkdm.pages.rendering
from mkdm.pages.rendering import number, render

TEMPLATES = Path(mkdm.pages.rendering.__file__).parent / "templates"


def test_numbers():
    assert [number(0.12345), number(float("nan")), number(-0.01, sign=True)] == ["0.123", "–", "−0.010"]


def test_a_value_that_is_missing_is_no_empty_page():
    with pytest.raises(UndefinedError, match="'about' is undefined"):
        render("evaluation.html.jinja", title="t", paired=False)


def test_one_place_alone_takes_a_value_for_html():
    """The SVG of a plot. Whatever else comes from outside is text, in pages that are yet to be written too."""
    sources = {path.name: path.read_text() for path in sorted(TEMPLATES.glob("*.jinja"))}
    assert len(sources) >= 4
    safe = [(name, line.strip()) for name, text in sources.items() for line in text.splitlines() if "safe" in line]
    assert [name for name, _ in safe] == ["macros.html.jinja"]
    assert "{{ plot.svg | safe }}" in safe[0][1]
    for name, text in sources.items():
        assert not re.search(r"autoescape|Markup|(?:src|href)=[\"'](?!#)|<script|@import|://", text), name
    for name in ("evaluation.html.jinja", "run.html.jinja"):
        assert sources[name].startswith('{% extends "base.html.jinja" %}'), name
