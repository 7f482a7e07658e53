"""The encoder's config of a BERT student, for what the benchmark makes of it."""

import copy

from transformers import BertConfig

from mkdm.errors import ModelError
from mkdm.model import MkdmModel


def bert_config(student: MkdmModel) -> BertConfig:
    """A copy of the encoder's config, free to be changed.

    Raises:
        ModelError: the encoder is no BERT.
    """
    config = student.config.encoder_config
    if not isinstance(config, BertConfig):
        raise ModelError(
            f"the student's encoder is {type(config).__name__}; only BERT can be widened or measured with peers"
        )
    return copy.deepcopy(config)
