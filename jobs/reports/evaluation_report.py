"""What an evaluation leaves: its rows in `evaluations`, its files, and what the command prints."""

import json
import math
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession

from jobs.engine import TABLES, Identity
from jobs.reports.score_sources import Source
from mkdm import __version__
from udfs.pages import METRIC_TITLES, SCORER_NAMES, evaluation_page, number
from udfs.quality import AGAINST, DIFFERENCE, METRICS, MODEL, Evaluation, Figure


@dataclass(frozen=True)
class EvaluationReport:
    """An evaluation. Its `str` is what the command prints.

    Attributes:
        about: what was evaluated, by name.
        page: where the page is.
        table: where the figures were added.
    """

    evaluation_id: str
    evaluation: Evaluation
    about: dict[str, str]
    page: str
    table: str

    def __str__(self) -> str:
        widest = max(len(group.source) for group in self.evaluation.groups)
        titles = "".join(f"{METRIC_TITLES[metric]:<17}" for metric in METRICS)
        lines = [f"{'source':<{widest}} {'pairs':>8}  {'scorer':<15} {titles}".rstrip()]
        for group in self.evaluation.groups:
            for scorer in dict.fromkeys(figure.scorer for figure in group.figures):
                cells = "".join(f"{_cell(group.figure(scorer, metric)):<17}" for metric in METRICS)
                lines.append(f"{group.source:<{widest}} {group.pairs:>8,}  {SCORER_NAMES[scorer]:<15} {cells}".rstrip())
        rows = [*self.about.items(), ("evaluations", self.table), ("page", self.page)]
        note = "Beside each figure its 95 % interval; of a difference, its two-sided p value."
        return "\n".join([*lines, note, "", *(f"{name:<30}{value}" for name, value in rows)])


def _cell(figure: Figure) -> str:
    """0.893 .880–.905; of a difference, +0.012 p 0.034."""
    if figure.scorer == DIFFERENCE:
        return number(figure.value, sign=True) + (
            f" p {figure.p_value:.3f}" if figure.p_value == figure.p_value else ""
        )
    if math.isnan(figure.low):
        return number(figure.value)
    low, high = (number(value).removeprefix("0") for value in (figure.low, figure.high))
    return f"{number(figure.value)} {low}–{high}"


def write_files(folder: Path, report: EvaluationReport, title: str) -> None:
    """Write evaluation.html and evaluation.json."""
    (folder / "evaluation.html").write_text(
        evaluation_page(report.evaluation, title, list(report.about.items())), encoding="utf-8"
    )
    plain = {"evaluation_id": report.evaluation_id, "about": report.about, **report.evaluation.plain()}
    text = json.dumps(plain, indent=1, ensure_ascii=False, allow_nan=False)
    (folder / "evaluation.json").write_text(text + "\n", encoding="utf-8")


def table_rows(
    spark: SparkSession, evaluation: Evaluation, identity: Identity, sources: dict[str, Source], now: datetime
) -> DataFrame:
    """A row of `evaluations` per figure; null for NaN. Only rows of the paired test have an against_version.

    Args:
        sources: by scorer, MODEL and perhaps AGAINST.
    """
    schema = TABLES["evaluations"].schema
    rows = []
    for group in evaluation.groups:
        for figure in group.figures:
            source = sources.get(MODEL if figure.scorer == DIFFERENCE else figure.scorer)
            row = {
                "evaluation_id": identity.fingerprint,
                "source": group.source,
                "model": source.name if source else None,
                "model_version": source.version if source else None,
                "against_version": sources[AGAINST].version if figure.scorer == DIFFERENCE else None,
                "pairs": group.pairs,
                "queries": group.queries,
                "input_versions": identity.input_versions,
                "evaluated_at": now,
                "engine_version": __version__,
            }
            for name, value in asdict(figure).items():
                row[name] = None if isinstance(value, float) and math.isnan(value) else value
            rows.append(tuple(row[name] for name in schema.names))
    return spark.createDataFrame(rows, schema).coalesce(1)
