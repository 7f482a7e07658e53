import re

import pytest

from mkdm.pages.plots import draw, shortened

HOSTILE = "<script>alert('x')</script>$x^2$"


def dots(drawing) -> None:
    axes = drawing.add_subplot()
    axes.plot([0, 1], [0, 1], marker="o", label=HOSTILE)
    axes.legend()


def test_plots_of_a_page_have_no_id_in_common():
    """Or one plot's clipping and markers would be those of another."""
    one, other = draw("one", dots, 4, 3), draw("other", dots, 4, 3)
    ids = re.findall(r'\bid="([^"]+)"', one.svg + other.svg)
    assert len(ids) >= 4
    assert len(set(ids)) == len(ids)
    referred = re.findall(r'(?:url\(|xlink:href=")#(\w+)', one.svg + other.svg)
    assert referred
    assert set(referred) <= set(ids)
    assert draw("one", dots, 4, 3) == one, "the same plot is the same file"


def test_texts_of_a_plot_are_escaped():
    svg = draw("one", dots, 4, 3).svg
    assert svg.startswith("<svg")
    assert "<script" not in svg
    assert "$x^2$" in svg


@pytest.mark.parametrize(
    ("name", "keep_end", "expected"),
    [
        ("a" * 24, False, "a" * 24),
        ("a" * 24 + "b", False, "a" * 23 + "…"),
        ("a" * 24 + "b", True, "…" + "a" * 22 + "b"),
    ],
)
def test_long_names_are_shortened_to_what_fits(name, keep_end, expected):
    assert shortened(name, keep_end) == expected
