"""How good scores are: metrics, bootstrap, baselines that need no model, and how far two runs' scores lie apart.

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
    from mkdm.evaluation.resampled_metrics import auc_measure
else:
    __all__, __getattr__, __dir__ = door(__name__)
