"""An auxiliary task for training: which tokens of the query occur in the passage.

Golden labels alone, one bit a pair, teach an encoder to look a query's words up in the passage only after very many
pairs; this task asks for just that at every query token, and needs no label. Its header is thrown away afterwards.
"""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from mkdm.cls_only import last_layer
from mkdm.encoding import Batch, PairEncoder
from mkdm.errors import ConfigError
from mkdm.model import MkdmModel


class TokenMatcher(nn.Module):
    """A header on the states that enter a student's last layer, and its loss.

    Raises:
        ConfigError: the student's encoder is of no known architecture, or has one layer alone.
    """

    def __init__(self, student: MkdmModel, encoder: PairEncoder) -> None:
        super().__init__()
        layer = last_layer(student.encoder)
        if layer is None or student.config.num_layers < 2:
            raise ConfigError("--match-weight needs an encoder of two layers or more, of a known architecture")
        self.header = nn.Linear(student.golden_header.in_features, 1).to(student.device)
        self._encoder = encoder
        self._states: Tensor | None = None
        layer.register_forward_pre_hook(self._keep)

    def _keep(self, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._states = inputs[0]  # [B, L, H]

    def loss(self, batch: Batch) -> Tensor:
        """Mean binary cross-entropy over the query tokens of the batch that the student has just seen."""
        assert self._states is not None
        is_query, occurs = query_tokens(batch, self._encoder)
        logits = self.header(self._states.float())[..., 0]  # [B, L]
        chosen = torch.from_numpy(is_query).to(logits.device)
        targets = torch.from_numpy(occurs).to(logits.device)
        return F.binary_cross_entropy_with_logits(logits[chosen], targets[chosen])


def query_tokens(batch: Batch, encoder: PairEncoder) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """Where the query's tokens stand, and which of them occur in the passage too: bool[B, L] and float32[B, L]."""
    is_query = np.zeros(batch.input_ids.shape, dtype=bool)
    occurs = np.zeros(batch.input_ids.shape, dtype=np.float32)
    for row, ids in enumerate(batch.input_ids):
        start, end = encoder.query_span(ids)
        is_query[row, start:end] = True
        occurs[row, start:end] = np.isin(ids[start:end], ids[end:][batch.attention_mask[row, end:] == 1])
    return is_query, occurs
