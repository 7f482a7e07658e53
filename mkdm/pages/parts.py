"""What our HTML pages share: one file each, that needs no other and no network; plots are inline SVG."""

import html
import math
import re
import warnings
from collections.abc import Callable, Sequence
from io import StringIO
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # matplotlib takes a second to import
    from matplotlib.figure import Figure as Drawing

STYLE = """
:root { color-scheme: light }
body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 74rem; margin: 2rem auto;
  padding: 0 1.25rem }
h1 { font-size: 1.5rem; overflow-wrap: anywhere }
h2 { font-size: 1.15rem; margin: 2.25rem 0 .5rem }
p { max-width: 60rem; margin: .5rem 0 }
.wide { overflow-x: auto }
table { border-collapse: collapse }
th, td { text-align: left; vertical-align: top; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid #e3e3e3 }
thead th { border-bottom: 2px solid #999; white-space: nowrap }
.figures td { white-space: nowrap; font-variant-numeric: tabular-nums }
.figures th[scope=rowgroup] { min-width: 9rem; max-width: 14rem; overflow-wrap: anywhere }
.about td { overflow-wrap: anywhere }
.about th { white-space: nowrap; font-weight: 600 }
.figures tbody { border-bottom: 2px solid #bbb }
small { display: block; color: #5a5a5a; font-weight: 400 }
.plots { display: flex; flex-wrap: wrap; gap: 0 1.5rem; align-items: flex-start }
figure { margin: 1.5rem 0 0; max-width: 100% }
figcaption { font-weight: 600 }
svg { max-width: 100%; height: auto; display: block }
"""


def document(title: str, parts: Sequence[str]) -> str:
    """A whole page.

    Args:
        title: any text.
        parts: HTML of its body, below the title.
    """
    head = [
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{html.escape(title)}</title>',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<style>{STYLE}</style>\n</head>\n<body>",
        f"<h1>{html.escape(title)}</h1>",
    ]
    return "\n".join([*head, *parts, "</body>\n</html>\n"])


def about_table(about: Sequence[tuple[str, str]]) -> str:
    """Names and values, any text, as a table."""
    rows = "\n".join(f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>" for name, value in about)
    return f'<div class="wide"><table class="about"><tbody>\n{rows}\n</tbody></table></div>'


def plots(drawn: Sequence[tuple[str, str]]) -> str:
    """Plots with their captions, any text, side by side where there is room."""
    figures = "\n".join(
        f'<figure id="plot-{number}"><figcaption>{html.escape(name)}</figcaption>{svg}</figure>'
        for number, (name, svg) in enumerate(drawn, 1)
    )
    return f'<div class="plots">\n{figures}\n</div>'


def number(value: float, digits: int = 3, sign: bool = False) -> str:
    """A figure as it is shown; – for NaN."""
    if math.isnan(value):
        return "–"
    return f"{value:{'+' if sign else ''}.{digits}f}".replace("-", "−")


def draw(plot: Callable[["Drawing"], None], width: float, height: float) -> str:
    """A plot of that many inches as SVG; its text stays text, in the reader's own fonts."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure as Drawing

    settings: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": "mkdm",
        "text.parse_math": False,  # a $ in a name is a $
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": "#e6e6e6",
        "axes.axisbelow": True,
        "legend.frameon": False,
    }
    with rc_context(settings), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of letters that the font lacks by which text is measured
        drawing, file = Drawing(figsize=(width, height), layout="constrained"), StringIO()
        plot(drawing)
        drawing.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    svg = file.getvalue()
    return re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
