"""What separate layers ask of a training run: the settings, and passages cut as the scorer cuts them."""

from dataclasses import replace
from typing import Any

import numpy as np

from mkdm.errors import ConfigError
from mkdm.model import Separation
from mkdm.scoring import Template
from mkdm.train.config import TrainConfig
from mkdm.train.rows import TrainingRows


def separation_of(config: TrainConfig, tokenizer: Any) -> Separation | None:
    """How the student's first layers read query and passage apart; None where they do not.

    Raises:
        ConfigError: the tokenizer puts no separator between query and passage.
    """
    if not config.separate_layers:
        return None
    separator = tokenizer.sep_token_id
    if separator is None:
        raise ConfigError("--separate-layers needs a tokenizer with a separator: start from an encoder that has one")
    return Separation(config.separate_layers, config.passage_position, int(separator))


def cut_passages(rows: TrainingRows, config: Any, template: Template) -> TrainingRows:
    """The rows with each passage cut to what separate layers leave it, whatever its query; the separator stays.

    Args:
        rows: cut, as the training set has them, so that the whole pair fits.
        config: `MkdmConfig` of the student.
        template: of the set.
    """
    separation: Separation | None = config.separation
    if separation is None:
        return rows
    ids, lengths = rows.input_ids.copy(), rows.lengths
    starts = (ids == separation.separator_id).argmax(axis=1) + 1
    kept = np.minimum(lengths, starts + separation.passage_part(config.max_length)).astype(lengths.dtype)
    for row in np.flatnonzero(kept < lengths).tolist():
        end, length = int(kept[row]), int(lengths[row])
        ids[row, end - 1] = ids[row, length - 1]
        ids[row, end:length] = template.pad_id
    return replace(rows, input_ids=ids, lengths=kept)
