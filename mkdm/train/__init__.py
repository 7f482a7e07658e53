"""Training: the set and its feeds, stages, losses (2)-(5), the loop, its state; `python -m mkdm.train`.

May import `mkdm.export` and what is below it. Only `petastorm_feed` imports petastorm.
"""

from typing import TYPE_CHECKING

from mkdm.doors import door

if TYPE_CHECKING:
    from mkdm.train.arrow_feed import row_groups
    from mkdm.train.config import TrainConfig
    from mkdm.train.loop import train
    from mkdm.train.micro_batches import padded_batch, query_numbers
    from mkdm.train.rows import (
        INPUT_IDS,
        LENGTH,
        NO_GOLDEN_LABEL,
        PAIR_HASH,
        QUERY_LENGTH,
        SOURCE,
        TrainingRows,
        soft_label_column,
    )
    from mkdm.train.training_set import MANIFEST, TrainingFile, TrainingSet
    from mkdm.train.validation import VALID
else:
    __all__, __getattr__, __dir__ = door(__name__)
