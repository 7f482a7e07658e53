"""The steps of a build: queries, passages, pairs, and the counts of what came through.

May import `jobs.engine`.
"""

from typing import TYPE_CHECKING

from mkdm.doors import door

if TYPE_CHECKING:
    from jobs.funnel.config import BuildPairsConfig
    from jobs.funnel.counts import FunnelReport, StepCounts, store_counts
    from jobs.funnel.inputs import DOCUMENTS, QUERIES, QUERY_DOCUMENTS, read_input, with_our_names
    from jobs.funnel.steps import Build, build_pairs, build_passages, build_queries, transform
else:
    __all__, __getattr__, __dir__ = door(__name__)
