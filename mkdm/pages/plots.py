"""Plots of pages: matplotlib draws them, as SVG that stands within a page and needs nothing else."""

import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from io import StringIO
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # matplotlib takes a second to import
    from matplotlib.figure import Figure as Drawing

BLUE, RED, GREEN, GREY = "#0072b2", "#d55e00", "#009e73", "#7f7f7f"
"""Okabe and Ito's, which people tell apart who do not see all colours, and grey."""
LONGEST = 24
"""Characters of a name that fit beside a plot."""


@dataclass(frozen=True)
class Plot:
    """A caption, any text, and its plot: an `<svg>` element whose texts are escaped."""

    caption: str
    svg: str


def draw(caption: str, plot: Callable[["Drawing"], None], width: float, height: float) -> Plot:
    """A plot of that many inches; its text stays text, in the reader's own fonts.

    The ids within it are those of no plot with another caption, so that several fit in one page.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure as Drawing

    settings: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": caption,
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
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    return Plot(caption, re.sub(r'<g id="[^"]+">', "<g>", svg))  # figure_1 and the like: names that nothing refers to


def shortened(name: str, keep_end: bool = False) -> str:
    """A name that fits beside a plot."""
    if len(name) <= LONGEST:
        return name
    return f"…{name[1 - LONGEST :]}" if keep_end else f"{name[: LONGEST - 1]}…"
