"""How good scores are: metrics, bootstrap, baselines, TREC's files and metrics, and how far two runs' scores lie apart.

May import `mkdm.scoring` and what is below it.
"""

from typing import TYPE_CHECKING

from mkdm.doors import door

if TYPE_CHECKING:
    from mkdm.evaluation.baselines import word_overlap
    from mkdm.evaluation.drift import ks, psi, reading
    from mkdm.evaluation.evaluation import (
        AGAINST,
        ALL,
        BM25,
        DIFFERENCE,
        METRICS,
        MODEL,
        OVERLAP,
        Evaluation,
        Figure,
        Group,
        LabelledPairs,
        bootstrap,
        evaluate,
        interval,
    )
    from mkdm.evaluation.metrics import accuracy, auc
    from mkdm.evaluation.ranking_metrics import RankingMetric, mean_intervals, measure_ranking, ranking
    from mkdm.evaluation.resampled_metrics import auc_measure
    from mkdm.evaluation.trec import Qrels, TrecRun, read_qrels, read_run, run_lines
else:
    __all__, __getattr__, __dir__ = door(__name__)
