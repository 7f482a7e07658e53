"""The encoder's config of a BERT student, for what the benchmark makes of it."""

import copy

from transformers import BertConfig

from mkdm.errors import ModelError
from mkdm.model import MkdmModel


def bert_config(student: MkdmModel, reason: str) -> BertConfig:
    """A copy of the encoder's config, free to be changed.

    Args:
        reason: why it must be BERT; ends the error.

    Raises:
        ModelError: the encoder is no BERT.
    """
    config = student.config.encoder_config
    if not isinstance(config, BertConfig):
        raise ModelError(f"the student's encoder is {type(config).__name__}; {reason}")
    return copy.deepcopy(config)
