"""The pages of an evaluation and of a run, for the driver."""

from mkdm.pages import (
    METRIC_TITLES,
    SCORE_BINS,
    SCORER_NAMES,
    ChunkWork,
    ExecutorWork,
    RunFigures,
    evaluation_page,
    number,
    run_page,
)

__all__ = [
    "METRIC_TITLES",
    "SCORER_NAMES",
    "SCORE_BINS",
    "ChunkWork",
    "ExecutorWork",
    "RunFigures",
    "evaluation_page",
    "number",
    "run_page",
]
