"""An auxiliary task for training: which tokens of the query occur in the passage.

Golden labels alone, one bit a pair, teach an encoder to look a query's words up in the passage only after very many
pairs; this task asks for just that at every query token, and needs no label. Its header is thrown away afterwards.
"""

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from mkdm.cls_only import last_layer
from mkdm.errors import ConfigError
from mkdm.model import MkdmModel
from mkdm.training_set import Template, TrainingRows


class TokenMatcher(nn.Module):
    """A header on the states that enter a student's last layer, and its loss.

    Raises:
        ConfigError: the student's encoder is of no known architecture, or has one layer alone.
    """

    def __init__(self, student: MkdmModel) -> None:
        super().__init__()
        layer = last_layer(student.encoder)
        if layer is None or student.config.num_layers < 2:
            raise ConfigError("--match-weight needs an encoder of two layers or more, of a known architecture")
        self.header = nn.Linear(student.golden_header.in_features, 1).to(student.device)
        self._states: Tensor | None = None
        layer.register_forward_pre_hook(self._keep)

    def _keep(self, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._states = inputs[0]  # [B, L, H]

    def loss(self, is_query: Tensor, occurs: Tensor) -> Tensor:
        """Mean binary cross-entropy over the query tokens of the batch that the student has just seen.

        Args:
            is_query: bool[B, L]
            occurs: float32[B, L]
        """
        assert self._states is not None
        logits = self.header(self._states.float())[..., 0]  # [B, L]
        return F.binary_cross_entropy_with_logits(logits[is_query], occurs[is_query])


def query_tokens(rows: TrainingRows, template: Template) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """Where the queries' tokens stand, and which of them occur in the passage too: bool[B, L] and float32[B, L]."""
    shape = len(rows), int(rows.lengths.max())
    is_query, occurs = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=np.float32)
    start = template.query_start
    for row, (ids, length, size) in enumerate(zip(rows.input_ids, rows.lengths, rows.query_lengths, strict=True)):
        is_query[row, start : start + size] = True
        occurs[row, start : start + size] = np.isin(ids[start : start + size], ids[start + size : length])
    return is_query, occurs
