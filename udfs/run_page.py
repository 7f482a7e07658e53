"""The page of a run, for the driver."""

from mkdm.pages import SCORE_BINS, ChunkWork, ExecutorWork, RunFigures, run_page

__all__ = ["SCORE_BINS", "ChunkWork", "ExecutorWork", "RunFigures", "run_page"]
