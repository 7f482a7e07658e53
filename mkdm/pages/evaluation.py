"""The page of an evaluation: its figures by source, the paired test, and its plots."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mkdm.evaluation import AGAINST, BM25, DIFFERENCE, MODEL, OVERLAP, Evaluation, Figure
from mkdm.pages.plots import BLUE, GREEN, GREY, RED, draw, shortened
from mkdm.pages.rendering import number, render

if TYPE_CHECKING:  # matplotlib takes a second to import
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

METRIC_TITLES = {
    "accuracy": "ACC",
    "auc": "AUC",
    "mrr@10": "MRR@10",
    "ndcg@10": "NDCG@10",
    "ece": "ECE",
    "brier": "Brier",
}
SCORER_NAMES = {
    MODEL: "model",
    AGAINST: "against",
    OVERLAP: "word overlap",
    BM25: "BM25",
    DIFFERENCE: "model − against",
}
COLOURS = {MODEL: BLUE, AGAINST: RED, OVERLAP: GREY, BM25: GREEN}
MARKS = {MODEL: "o", AGAINST: "s", OVERLAP: "^", BM25: "D"}


def evaluation_page(evaluation: Evaluation, title: str, about: Sequence[tuple[str, str]]) -> str:
    """The whole page.

    Args:
        title: of the page; any text.
        about: what was evaluated, as names and values; any text.
    """
    scorers = list(evaluation.roc)
    height = 1.3 + len(evaluation.groups) * (0.2 + 0.16 * len(scorers))
    plots = [
        draw("ROC, all pairs", lambda drawing: _roc(drawing, evaluation), 5.4, 4.8),
        draw("Calibration, all pairs", lambda drawing: _calibration(drawing, evaluation), 5.4, 4.8),
        draw("AUC by source, with 95 % intervals", lambda drawing: _by_source(drawing, evaluation), 5.4, height),
        draw("AUC and ACC by length of the pair", lambda drawing: _by_length(drawing, evaluation), 5.4, 4.8),
    ]
    return render(
        "evaluation.html.jinja",
        title=title,
        about=about,
        groups=evaluation.groups,
        scorers=scorers,
        scorer_names=SCORER_NAMES,
        metric_titles=METRIC_TITLES,
        paired=AGAINST in scorers,
        difference=DIFFERENCE,
        plots=plots,
    )


def _roc(drawing: "Drawing", evaluation: Evaluation) -> None:
    axes = drawing.add_subplot()
    axes.plot([0, 1], [0, 1], color="#bbbbbb", linewidth=1, linestyle="--")
    for scorer, points in evaluation.roc.items():
        area = number(evaluation.groups[0].figure(scorer, "auc").value)
        width = 2.0 if scorer in (MODEL, AGAINST) else 1.2
        axes.plot(
            *_columns(points, 2), color=COLOURS[scorer], linewidth=width, label=f"{SCORER_NAMES[scorer]}, AUC {area}"
        )
    axes.set(xlabel="false positive rate", ylabel="true positive rate", xlim=(0, 1), ylim=(0, 1.005), aspect="equal")
    axes.legend(loc="lower right")


def _calibration(drawing: "Drawing", evaluation: Evaluation) -> None:
    curve, counts = drawing.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    curve.plot([0, 1], [0, 1], color="#bbbbbb", linewidth=1, linestyle="--")
    wide = 0.08 / max(1, len(evaluation.calibration))
    for place, (scorer, bins) in enumerate(evaluation.calibration.items()):
        pairs, score, positives = _columns([(one.pairs, one.score, one.positives) for one in bins], 3)
        error = number(evaluation.groups[0].figure(scorer, "ece").value)
        curve.plot(
            score, positives, color=COLOURS[scorer], marker=MARKS[scorer], label=f"{SCORER_NAMES[scorer]}, ECE {error}"
        )
        starts = [min(int(value * 10), 9) / 10 + 0.01 + place * wide for value in score]
        counts.bar(starts, pairs, width=wide, align="edge", color=COLOURS[scorer])
    curve.set(ylabel="share of golden label 1", xlim=(0, 1), ylim=(-0.02, 1.02))
    curve.legend(loc="upper left")
    counts.set(xlabel="score", ylabel="pairs")
    counts.yaxis.set_major_formatter("{x:,.0f}")


def _by_source(drawing: "Drawing", evaluation: Evaluation) -> None:
    axes = drawing.add_subplot()
    scorers = list(evaluation.roc)
    for place, scorer in enumerate(scorers):
        shift = (place - (len(scorers) - 1) / 2) * 0.7 / len(scorers)
        found = [group.figure(scorer, "auc") for group in evaluation.groups]
        _intervals(axes, scorer, [row + shift for row in range(len(found))], found, upright=False)
    names = [shortened(group.source) for group in evaluation.groups]
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
            _intervals(axes, scorer, [column + shift for column in range(len(found))], found, upright=True)
        axes.set_ylabel(METRIC_TITLES[metric])
    names = [f"{group.source}\n{group.pairs:,} pairs" for group in evaluation.lengths]
    panels[1].set_xticks(range(len(names)), names)
    panels[1].set(xlabel="words of query and passage", xlim=(-0.5, len(names) - 0.5))
    if len(scorers) > 1:
        drawing.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(scorers))


def _intervals(axes: "Axes", scorer: str, places: list[float], found: list[Figure], upright: bool) -> None:
    """A dot and an interval per figure."""
    values = [figure.value for figure in found]
    lows, highs = [figure.low for figure in found], [figure.high for figure in found]
    (axes.vlines if upright else axes.hlines)(places, lows, highs, color=COLOURS[scorer], linewidth=1.8)
    dots = (places, values) if upright else (values, places)
    axes.plot(
        *dots, linestyle="", marker=MARKS[scorer], markersize=5, color=COLOURS[scorer], label=SCORER_NAMES[scorer]
    )


def _columns(rows: Sequence[tuple[float, ...]], width: int) -> list[list[float]]:
    return [[row[column] for row in rows] for column in range(width)]
