"""Measures scores against golden labels and judgments: a grouped pandas function, and what the driver measures with."""

import pandas as pd
from pyspark.sql import DataFrame

from mkdm.columns import GOLDEN_LABEL, PASSAGE, QUERY, SCORE
from mkdm.evaluation import (
    AGAINST,
    ALL,
    DIFFERENCE,
    METRICS,
    MODEL,
    Evaluation,
    Figure,
    Group,
    LabelledPairs,
    Qrels,
    RankingMetric,
    TrecRun,
    accuracy,
    auc,
    evaluate,
    mean_intervals,
    measure_ranking,
    ranking,
    read_qrels,
    read_run,
    run_lines,
    word_overlap,
)

__all__ = [
    "AGAINST",
    "ALL",
    "DIFFERENCE",
    "METRICS",
    "MODEL",
    "Evaluation",
    "Figure",
    "Group",
    "LabelledPairs",
    "Qrels",
    "RankingMetric",
    "TrecRun",
    "auc",
    "evaluate",
    "mean_intervals",
    "measure_ranking",
    "quality_by",
    "ranking",
    "read_qrels",
    "read_run",
    "run_lines",
]

SCHEMA = "{by} string, pairs long, positives long, accuracy double, auc double, overlap_auc double"


def quality_by(scored: DataFrame, by: str) -> DataFrame:
    """ACC and AUC of the scores beside the AUC of word overlap, a row per value of the column `by` and one for all.

    Args:
        scored: `by` (string), query, passage, score, golden_label.

    Returns:
        by, pairs, positives, accuracy, auc, overlap_auc; the last row's `by` is "all".
    """

    def measure(group: pd.DataFrame) -> pd.DataFrame:
        labels, scores = group[GOLDEN_LABEL].to_numpy(), group[SCORE].to_numpy()
        overlap = word_overlap(group[QUERY].tolist(), group[PASSAGE].tolist())
        row = {
            by: group[by].iloc[0],
            "pairs": len(group),
            "positives": int(labels.sum()),
            "accuracy": accuracy(labels, scores),
            "auc": auc(labels, scores),
            "overlap_auc": auc(labels, overlap),
        }
        return pd.DataFrame([row])

    from pyspark.sql.functions import lit

    both = scored.unionByName(scored.withColumn(by, lit("all")))
    return both.groupBy(by).applyInPandas(measure, SCHEMA.format(by=by))
