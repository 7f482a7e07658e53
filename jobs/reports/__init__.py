"""Pages and tables for people: evaluations, the page of a run, benchmarks.

May import `jobs.engine`, `jobs.funnel` and `jobs.training_set`.
"""

from typing import TYPE_CHECKING

from mkdm.doors import door

if TYPE_CHECKING:
    from jobs.reports.benchmark_report import draw_chart, job_and_scorer, summary
    from jobs.reports.benchmark_results import BenchmarkResults, LatencyResult, Machine, SideResult, quality
    from jobs.reports.benchmark_sides import (
        OPENVINO_PEER,
        OUR_SIDES,
        Once,
        Side,
        Workplace,
        default_sides,
        model_mb,
        run_json,
        run_latency,
        run_once,
    )
    from jobs.reports.evaluation_report import EvaluationReport, table_rows, write_files
    from jobs.reports.golden_labels import GROUP, read_grouped
    from jobs.reports.ranked_documents import (
        RankedDocuments,
        RankedDocumentsFlags,
        measure_documents,
        require_ranking,
    )
    from jobs.reports.run_page import Places, write_report
    from jobs.reports.score_sources import Model, Source, StoredRun, collect, join_scores, scoring_model, stored_source
else:
    __all__, __getattr__, __dir__ = door(__name__)
