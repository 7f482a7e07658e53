"""Widens a BERT student without changing its scores, so that speed at a larger hidden size comes with real quality."""

import copy
import math

import torch
from torch import Tensor

from mkdm.benchmark.bert_config import bert_config
from mkdm.model import MkdmConfig, MkdmModel


def widen(student: MkdmModel, factor: int) -> MkdmModel:
    """A student of `factor` × the hidden size, with as many heads, that gives the same scores (to about 1e-6).

    Every unit is repeated `factor` times: 3 × 384 with heads of 32 becomes 3 × 768 with heads of 64, the shape of
    BERT-base's first 3 layers. Weights are divided by the factor on their input's side; queries are divided by its
    root, since a head's product of query and key grows by the factor and its divisor by the root; LayerNorm sees the
    same mean and variance. It is what a benchmark needs: the work of a wide student, with scores that mean something.
    It is no better model: it has the quality of the narrow one, which no trained student of that width would have.

    Args:
        student: with a BERT encoder.

    Raises:
        ModelError: the encoder is no BERT.
    """
    wide_shape = bert_config(student, "only BERT can be widened")
    wide_shape.hidden_size *= factor
    wide_shape.intermediate_size *= factor
    wide = MkdmModel(student.config.like(wide_shape))
    wide.load_state_dict({name: _repeat(name, tensor, factor) for name, tensor in student.state_dict().items()})
    wide.eval()
    return wide


def _repeat(name: str, tensor: Tensor, factor: int) -> Tensor:
    """One parameter of the wide student: vectors and outputs repeated, inputs repeated and divided."""
    if "embeddings.weight" in name:  # [rows, H]: what is looked up is an output
        return tensor.repeat_interleave(factor, dim=1)
    if tensor.dim() == 2:
        tensor = tensor.repeat_interleave(factor, dim=1) / factor
    if "header" in name:  # its outputs are logits
        return tensor
    if ".query." in name:
        tensor = tensor / math.sqrt(factor)
    return tensor.repeat_interleave(factor, dim=0)


def random_student(student: MkdmModel, num_layers: int) -> MkdmModel:
    """A student of random weights, with the shape and headers of another but for its number of layers."""
    like = student.config
    shape = copy.deepcopy(like.encoder_config)
    shape.num_hidden_layers = num_layers
    torch.manual_seed(0)
    config = MkdmConfig(
        encoder_config=shape, teacher_ids=like.teacher_ids, alpha=like.alpha, max_length=like.max_length
    )
    model = MkdmModel(config)
    model.eval()
    return model
