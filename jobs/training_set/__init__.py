"""The steps of an export of training data: labels, splits, files, and what the set has.

May import `jobs.engine` and `jobs.funnel`.
"""

from typing import TYPE_CHECKING

from mkdm.doors import door

if TYPE_CHECKING:
    from jobs.training_set.files import TrainingFolder
    from jobs.training_set.labels import (
        LABELLED,
        GoldenLabels,
        SoftLabels,
        read_golden_labels,
        read_soft_labels,
        with_labels,
    )
    from jobs.training_set.report import TrainingSetReport, counts_of, totals_of
    from jobs.training_set.splits import LEFT_OUT, OF_QUERY, SPLIT, sources_of, split_of, training_rows
else:
    __all__, __getattr__, __dir__ = door(__name__)
