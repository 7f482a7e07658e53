"""The page of a scoring run: its drift, rejects and executors, and its plots."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING

from mkdm.evaluation import ks, psi, reading
from mkdm.pages.plots import BLUE, GREY, RED, draw, shortened
from mkdm.pages.rendering import render

if TYPE_CHECKING:  # matplotlib takes a second to import
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing
    from matplotlib.ticker import MaxNLocator

SCORE_BINS = 1000
"""Fine bins of [0, 1] in which scores are counted: drift is told from them, and twenty at a time make a bar."""
_BARS = 50
_DRAWN, _LISTED = 40, 200
"""Executors that a plot and the table have room for."""


@dataclass(frozen=True)
class ChunkWork:
    """One committed chunk: when it was done, how long it took, and what came of it."""

    finished_at: datetime
    seconds: float
    rows: int
    padding_ratio: float


@dataclass(frozen=True)
class ExecutorWork:
    """What one executor did: pairs, tokens, seconds of scoring, and models it loaded."""

    name: str
    rows: int
    tokens: int
    seconds: float
    loads: int


@dataclass(frozen=True)
class RunFigures:
    """All that the page shows of a run.

    Attributes:
        about: names and values, any text.
        chunks: in the order in which they were done.
        rejects: by error_code, pairs.
        token_histogram: pairs by their tokens, rounded up to a multiple of 16; empty for a run from before 0.7.
        executors: the busiest first; empty for a run from before 0.7.
        scores: how many lie in each of SCORE_BINS bins.
        before: the same for the previous complete run of the same pairs; empty where there is none.
        before_name: that run, or why there is none.
    """

    about: list[tuple[str, str]]
    chunks: list[ChunkWork]
    rejects: dict[str, int]
    token_histogram: dict[int, int]
    executors: list[ExecutorWork]
    scores: list[int]
    before: list[int] = field(default_factory=list)
    before_name: str = ""

    @property
    def psi(self) -> float:
        """The drift from the run before; NaN where there is none."""
        return psi(self.before, self.scores) if self.before else math.nan

    @property
    def ks(self) -> float:
        """The other figure of drift."""
        return ks(self.before, self.scores) if self.before else math.nan


def run_page(run: RunFigures, title: str) -> str:
    """The whole page; `title` is any text."""
    plots = [
        draw("Throughput over time", lambda drawing: _throughput(drawing, run.chunks), 5.4, 3.6),
        draw("Padding by chunk", lambda drawing: _padding(drawing, run.chunks), 5.4, 3.6),
    ]
    if run.token_histogram:
        plots.append(draw("Length of the pairs", lambda drawing: _lengths(drawing, run.token_histogram), 5.4, 3.6))
    plots.append(draw("Scores, beside the previous run", lambda drawing: _scores(drawing, run), 5.4, 3.6))
    if run.rejects:
        height = 1.1 + 0.3 * len(run.rejects)
        plots.append(draw("Rejects by reason", lambda drawing: _rejects(drawing, run.rejects), 5.4, height))
    if run.executors:
        height = 1.3 + 0.3 * min(len(run.executors), _DRAWN)
        plots.append(draw("Load per executor", lambda drawing: _executors(drawing, run.executors), 5.4, height))
    rejected = sum(run.rejects.values())
    return render(
        "run.html.jinja",
        title=title,
        run=run,
        psi_reading=reading(run.psi),
        mean_before=_mean(run.before),
        mean_now=_mean(run.scores),
        reject_rows=[(code, f"{count:,}", f"{count / rejected:.1%}") for code, count in _by_count(run.rejects)],
        executor_rows=[_executor_row(one) for one in run.executors[:_LISTED]],
        executors_left=max(0, len(run.executors) - _LISTED),
        plots=plots,
    )


def _executor_row(one: ExecutorWork) -> tuple[str, ...]:
    rate = f"{one.rows / one.seconds:,.0f}" if one.seconds else "–"
    return one.name, f"{one.rows:,}", f"{one.tokens:,}", f"{one.seconds:,.1f}", rate, f"{one.loads:,}"


def _mean(counts: Sequence[int]) -> float:
    """From the middles of the bins."""
    total = sum(counts)
    return sum((place + 0.5) / len(counts) * count for place, count in enumerate(counts)) / total if total else math.nan


def _throughput(drawing: "Drawing", chunks: Sequence[ChunkWork]) -> None:
    """Pairs/s from minute to minute: of chunks that overlap, as two drivers make them, the sum."""
    axes = drawing.add_subplot()
    ends = [one.finished_at.timestamp() for one in chunks]
    starts = [end - one.seconds for end, one in zip(ends, chunks, strict=True)]
    edges = sorted({*starts, *ends})
    rates = [
        sum(
            one.rows / one.seconds
            for one, start, end in zip(chunks, starts, ends, strict=True)
            if one.seconds and start <= left and right <= end
        )
        for left, right in pairwise(edges)
    ]
    unit, seconds = _unit(edges[-1] - edges[0] if edges else 0)
    if rates:
        axes.stairs(rates, [(edge - edges[0]) / seconds for edge in edges], fill=True, color=BLUE, alpha=0.85)
    axes.set(
        xlabel=f"{unit} since the first chunk began", ylabel="pairs/s", ylim=(0, max(rates, default=1) * 1.08 or 1)
    )
    _thousands(axes, "y")


def _unit(seconds: float) -> tuple[str, float]:
    return ("hours", 3600.0) if seconds > 3 * 3600 else ("minutes", 60.0) if seconds > 180 else ("seconds", 1.0)


def _padding(drawing: "Drawing", chunks: Sequence[ChunkWork]) -> None:
    axes = drawing.add_subplot()
    shares = [100 * one.padding_ratio for one in chunks]
    axes.bar(range(1, len(shares) + 1), shares, color=BLUE, width=0.8 if len(shares) < 60 else 1.0)
    axes.set(xlabel="chunk, in the order in which they were done", ylabel="padding, % of computed tokens")
    axes.set(xlim=(0, len(shares) + 1), ylim=(0, max(shares, default=0) * 1.15 or 1))
    axes.xaxis.set_major_locator(_ticks(8))


def _lengths(drawing: "Drawing", token_histogram: dict[int, int]) -> None:
    axes = drawing.add_subplot()
    lengths = sorted(token_histogram)
    width = min((right - left for left, right in pairwise(lengths)), default=16)
    counts = [token_histogram[length] for length in lengths]
    axes.bar(
        [length - width / 2 for length in lengths], counts, width=width, color=BLUE, edgecolor="white", linewidth=0.5
    )
    axes.set(xlabel="tokens of query and passage", ylabel="pairs", xlim=(0, lengths[-1] + width / 2))
    _thousands(axes, "y")


def _scores(drawing: "Drawing", run: RunFigures) -> None:
    axes = drawing.add_subplot()
    step = SCORE_BINS // _BARS
    edges = [place / _BARS for place in range(_BARS + 1)]
    for counts, name in ((run.scores, "this run"), (run.before, "previous run")):
        total = sum(counts)
        if not total:
            continue
        shares = [100 * sum(counts[place : place + step]) / total for place in range(0, SCORE_BINS, step)]
        if name == "this run":
            axes.stairs(shares, edges, fill=True, color=BLUE, alpha=0.75, label=name)
        else:
            axes.stairs(shares, edges, color="#1a1a1a", linewidth=1.3, label=name)
    axes.set(xlabel="score", ylabel="% of pairs", xlim=(0, 1))
    if axes.get_legend_handles_labels()[0]:
        drawing.legend(*axes.get_legend_handles_labels(), loc="outside upper right", ncols=2)


def _rejects(drawing: "Drawing", rejects: dict[str, int]) -> None:
    axes = drawing.add_subplot()
    codes, counts = zip(*_by_count(rejects), strict=True)
    _bars(axes, [shortened(code) for code in codes], [float(count) for count in counts], RED)
    axes.set_xlabel("pairs")


def _executors(drawing: "Drawing", executors: Sequence[ExecutorWork]) -> None:
    pairs, seconds = drawing.subplots(1, 2, sharey=True)
    shown = executors[:_DRAWN]
    names = [shortened(one.name, keep_end=True) for one in shown]
    _bars(pairs, names, [float(one.rows) for one in shown], BLUE)
    _bars(seconds, names, [one.seconds for one in shown], GREY)
    pairs.set_xlabel("pairs")
    seconds.set_xlabel("seconds of scoring")


def _bars(axes: "Axes", names: Sequence[str], values: Sequence[float], colour: str) -> None:
    axes.barh(range(len(names)), values, color=colour, height=0.62)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_locator(_ticks(3))
    axes.xaxis.set_major_formatter(lambda value, _: _short(value))


def _ticks(most: int) -> "MaxNLocator":
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(nbins=most, integer=True)


def _thousands(axes: "Axes", which: str) -> None:
    getattr(axes, f"{which}axis").set_major_formatter("{x:,.10g}")


def _short(value: float) -> str:
    """1,500 and 1.5 M: what fits below a narrow plot."""
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e4, " k")):
        if value >= size:
            return f"{value / (1e3 if size == 1e4 else size):,.4g}{unit}"
    return f"{value:,.4g}"


def _by_count(rejects: dict[str, int]) -> list[tuple[str, int]]:
    return sorted(rejects.items(), key=lambda item: (-item[1], item[0]))
