"""Texts of pages: what a browser would show, whatever the tags are like."""

import random

import pytest

from mkdm.text import html as module
from mkdm.text.html import strip_html


@pytest.mark.parametrize(
    ("html", "shown"),
    [
        ("<p>A <b>gasket</b> is a seal.</p><p>It fits.</p>", "A gasket is a seal.\nIt fits."),
        ("one<br>two<br/>three", "one\ntwo\nthree"),
        ("<ul><li>nuts<li>bolts</ul>", "nuts\nbolts"),
        ("<script>var a = '<p>no</p>';</script><style>p {}</style><p>yes", "yes"),
        ("<!-- no --><p>yes</p><!doctype html>", "yes"),
        ("<p>fish &amp; chips &lt;5 &eacute; &#233;</p>", "fish & chips <5 é é"),
        ("<p>a &lt; b</p>", "a < b"),
        ("<table><tr><td>a</td><td>b</td></tr></table>", "a\nb"),
        ("<title>The <b>title</title><p>text", "The <b>title\ntext"),
        ("<p>日本語 👩‍👩‍👧</p>", "日本語 👩‍👩‍👧"),
        ("<br>", ""),
        ("a < b and &amp;", "a < b and &amp;"),
        ("", ""),
    ],
)
def test_what_a_browser_shows(html, shown):
    assert strip_html(html) == shown


@pytest.mark.parametrize("tag", ["div", "p", "b", "font color=red", "a href=x", "table", "td", "li", "span"])
def test_tags_that_are_never_closed(tag):
    """50,000 of them; python's own parser takes minutes for those that lxml is through with in a second."""
    text = strip_html("".join(f"<{tag}>w{number} " for number in range(50_000)))
    assert text.split() == [f"w{number}" for number in range(50_000)]


@pytest.mark.parametrize("piece", ["<!-- ", "<a href='", "</b>", "<![CDATA[", "<?x ", "&#"])
def test_pieces_of_tags_without_end(piece):
    assert strip_html(f"<p>first</p>{piece * 50_000}").startswith("first")


@pytest.mark.parametrize("piece", ["<div></b>x ", "<i></b>x ", "<ul><li>x "])
def test_open_elements_are_bounded(piece, monkeypatch):
    """The parser looks through all of them for an end tag that fits none: 20,000 would be the square of that."""
    deepest = 0

    class Watched(module._Shown):
        def start(self, tag: str, attributes: object) -> None:
            nonlocal deepest
            super().start(tag, attributes)
            deepest = max(deepest, len(self.open))

    monkeypatch.setattr(module, "_Shown", Watched)
    assert strip_html(piece * 20_000).split() == ["x"] * 20_000
    assert module.DEEP < deepest < module.DEEP + module.PIECE


def test_closing_what_is_open_changes_no_text(monkeypatch):
    tokens = ["<div>", "</div>", "<b>", "</b>", "<p>", "text ", "<!-- c -->", "<script>s</script>", '<a href="x<y">']
    tokens += ["</a>", "&amp;", "<td>", "<br/>", "<textarea>", "</textarea>", "< ", ">", "'", "é"]
    choose = random.Random(0).choice
    pages = ["<br>" + "".join(choose(tokens) for _ in range(3000)) for _ in range(30)]
    monkeypatch.setattr(module, "PIECE", 64)
    monkeypatch.setattr(module, "DEEP", 16)
    pieces = ["".join(strip_html(page).split()) for page in pages]
    monkeypatch.setattr(module, "PIECE", 10**9)
    assert pieces == ["".join(strip_html(page).split()) for page in pages]
