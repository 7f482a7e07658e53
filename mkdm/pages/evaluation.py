"""The evaluation as one HTML page that needs no other file and no network: its plots are inline SVG."""

import html
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from mkdm.evaluation import AGAINST, BM25, DIFFERENCE, METRICS, MODEL, OVERLAP, Evaluation, Figure, Group
from mkdm.pages.parts import about_table, document, draw, number, plots

if TYPE_CHECKING:  # matplotlib takes a second to import
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

TITLES = {
    "accuracy": "ACC",
    "auc": "AUC",
    "mrr@10": "MRR@10",
    "ndcg@10": "NDCG@10",
    "ece": "ECE",
    "brier": "Brier",
}
NAMES = {MODEL: "model", AGAINST: "against", OVERLAP: "word overlap", BM25: "BM25", DIFFERENCE: "model − against"}
COLOURS = {MODEL: "#0072b2", AGAINST: "#d55e00", OVERLAP: "#7f7f7f", BM25: "#009e73"}  # Okabe and Ito's, and grey
MARKS = {MODEL: "o", AGAINST: "s", OVERLAP: "^", BM25: "D"}
LONGEST = 24
"""Characters of a group's name that fit beside a plot."""
NOTES = (
    "Below each figure stands its 95 % percentile interval over resamples of the queries: golden labels of one query "
    "are not independent. ACC counts a pair right if its score lies on its golden label's side of 0.5. MRR@10 and "
    "NDCG@10 are means over the queries that have a passage of golden label 1, among the passages that have a golden "
    "label; equal scores are in the order of passage_id. ECE, the calibration error, has 10 bins of equal width; "
    "resampling adds to its noise, so that its interval may lie above it. Word overlap and BM25 need no model; they "
    "are no probabilities, so they have no ACC, ECE or Brier score. – stands where a figure is not defined."
)


def page(evaluation: Evaluation, title: str, about: Sequence[tuple[str, str]]) -> str:
    """The whole page.

    Args:
        title: of the page; any text.
        about: what was evaluated, as names and values; any text.
    """
    scorers = list(evaluation.roc)
    drawn = [
        ("ROC, all pairs", draw(lambda drawing: _roc(drawing, evaluation), 5.4, 4.8)),
        ("Calibration, all pairs", draw(lambda drawing: _calibration(drawing, evaluation), 5.4, 4.8)),
        (
            "AUC by source, with 95 % intervals",
            draw(lambda drawing: _by_source(drawing, evaluation), 5.4, _height(evaluation, len(scorers))),
        ),
        ("AUC and ACC by length of the pair", draw(lambda drawing: _by_length(drawing, evaluation), 5.4, 4.8)),
    ]
    parts = [
        f"<h2>What was evaluated</h2>\n{about_table(about)}",
        f"<h2>Figures by source</h2>\n<p>{NOTES}</p>",
        _table(evaluation.groups, scorers, _cell),
        *_paired_test(evaluation),
        f"<h2>Plots</h2>\n{plots(drawn)}",
    ]
    return document(title, parts)


def _table(groups: Sequence[Group], scorers: Sequence[str], cell: Callable[[Figure], str]) -> str:
    heads = "".join(f"<th>{name}</th>" for name in ("source", "scorer", *TITLES.values()))
    parts = []
    for group in groups:
        lines = []
        size = f"{group.pairs:,} pairs, {group.queries:,} queries, {group.positives / group.pairs:.0%} golden label 1"
        source = f'<th scope="rowgroup" rowspan="{len(scorers)}">{html.escape(group.source)}<small>{size}</small></th>'
        for scorer in scorers:
            cells = "".join(f"<td>{cell(group.figure(scorer, metric))}</td>" for metric in METRICS)
            lines.append(f"<tr>{source}<td>{NAMES[scorer]}</td>{cells}</tr>")
            source = ""
        parts.append("<tbody>\n" + "\n".join(lines) + "\n</tbody>")
    body = "\n".join(parts)
    return f'<div class="wide"><table class="figures"><thead><tr>{heads}</tr></thead>\n{body}\n</table></div>'


def _cell(figure: Figure) -> str:
    if math.isnan(figure.low):
        return number(figure.value)
    return f"{number(figure.value)}<small>{number(figure.low)} – {number(figure.high)}</small>"


def _paired_test(evaluation: Evaluation) -> list[str]:
    if AGAINST not in evaluation.roc:
        return []

    def cell(figure: Figure) -> str:
        if math.isnan(figure.p_value):
            return number(figure.value, sign=True)
        interval = f"{number(figure.low, sign=True)} to {number(figure.high, sign=True)}"
        shown = f"<strong>{number(figure.value, sign=True)}</strong>" if figure.p_value < 0.05 else None
        return (
            f"{shown or number(figure.value, sign=True)}<small>{interval}</small><small>p {figure.p_value:.3f}</small>"
        )

    text = (
        "Model minus against, on the same pairs and the same resamples. Below each difference stand its 95 % interval "
        "and its two-sided p value; bold where p &lt; 0.05, not corrected for how many are tested. Lower is better for "
        "ECE and Brier."
    )
    return [f"<h2>Paired test</h2>\n<p>{text}</p>", _table(evaluation.groups, [DIFFERENCE], cell)]


def _roc(drawing: "Drawing", evaluation: Evaluation) -> None:
    axes = drawing.add_subplot()
    axes.plot([0, 1], [0, 1], color="#bbbbbb", linewidth=1, linestyle="--")
    for scorer, points in evaluation.roc.items():
        area = number(evaluation.groups[0].figure(scorer, "auc").value)
        width = 2.0 if scorer in (MODEL, AGAINST) else 1.2
        axes.plot(*_columns(points, 2), color=COLOURS[scorer], linewidth=width, label=f"{NAMES[scorer]}, AUC {area}")
    axes.set(xlabel="false positive rate", ylabel="true positive rate", xlim=(0, 1), ylim=(0, 1.005), aspect="equal")
    axes.legend(loc="lower right")


def _calibration(drawing: "Drawing", evaluation: Evaluation) -> None:
    curve, counts = drawing.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    curve.plot([0, 1], [0, 1], color="#bbbbbb", linewidth=1, linestyle="--")
    wide = 0.08 / max(1, len(evaluation.calibration))
    for place, (scorer, bins) in enumerate(evaluation.calibration.items()):
        pairs, score, positives = _columns([(one.pairs, one.score, one.positives) for one in bins], 3)
        error = number(evaluation.groups[0].figure(scorer, "ece").value)
        curve.plot(score, positives, color=COLOURS[scorer], marker=MARKS[scorer], label=f"{NAMES[scorer]}, ECE {error}")
        starts = [min(int(value * 10), 9) / 10 + 0.01 + place * wide for value in score]
        counts.bar(starts, pairs, width=wide, align="edge", color=COLOURS[scorer])
    curve.set(ylabel="share of golden label 1", xlim=(0, 1), ylim=(-0.02, 1.02))
    curve.legend(loc="upper left")
    counts.set(xlabel="score", ylabel="pairs")
    counts.yaxis.set_major_formatter("{x:,.0f}")


def _height(evaluation: Evaluation, scorers: int) -> float:
    return 1.3 + len(evaluation.groups) * (0.2 + 0.16 * scorers)


def _by_source(drawing: "Drawing", evaluation: Evaluation) -> None:
    axes = drawing.add_subplot()
    scorers = list(evaluation.roc)
    for place, scorer in enumerate(scorers):
        shift = (place - (len(scorers) - 1) / 2) * 0.7 / len(scorers)
        found = [group.figure(scorer, "auc") for group in evaluation.groups]
        _bars(axes, scorer, [row + shift for row in range(len(found))], found, upright=False)
    names = [_short(group.source) for group in evaluation.groups]
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="AUC", ylim=(len(names) - 0.5, -0.5))
    axes.grid(visible=False, axis="y")
    axes.axvline(0.5, color="#bbbbbb", linewidth=1, linestyle="--")
    drawing.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=len(scorers))


def _by_length(drawing: "Drawing", evaluation: Evaluation) -> None:
    panels = drawing.subplots(2, 1, sharex=True)
    scorers = list(evaluation.calibration)
    for axes, metric in zip(panels, ("auc", "accuracy"), strict=True):
        for place, scorer in enumerate(scorers):
            shift = (place - (len(scorers) - 1) / 2) * 0.15
            found = [group.figure(scorer, metric) for group in evaluation.lengths]
            _bars(axes, scorer, [column + shift for column in range(len(found))], found, upright=True)
        axes.set_ylabel(TITLES[metric])
    names = [f"{group.source}\n{group.pairs:,} pairs" for group in evaluation.lengths]
    panels[1].set_xticks(range(len(names)), names)
    panels[1].set(xlabel="words of query and passage", xlim=(-0.5, len(names) - 0.5))
    if len(scorers) > 1:
        drawing.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(scorers))


def _bars(axes: "Axes", scorer: str, places: list[float], found: list[Figure], upright: bool) -> None:
    """A dot and an interval per figure."""
    values = [figure.value for figure in found]
    lows, highs = [figure.low for figure in found], [figure.high for figure in found]
    (axes.vlines if upright else axes.hlines)(places, lows, highs, color=COLOURS[scorer], linewidth=1.8)
    dots = (places, values) if upright else (values, places)
    axes.plot(*dots, linestyle="", marker=MARKS[scorer], markersize=5, color=COLOURS[scorer], label=NAMES[scorer])


def _columns(rows: Sequence[tuple[float, ...]], width: int) -> list[list[float]]:
    return [[row[column] for row in rows] for column in range(width)]


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"
