"""An auxiliary task for training: which tokens of the query occur in the passage.

Golden labels alone, one bit a pair, teach an encoder to look a query's words up in the passage only after very many
pairs; this task asks for just that at every query token, and needs no label. Its header is thrown away afterwards.
"""

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from mkdm.errors import ConfigError
from mkdm.model import MkdmModel, last_layer, layers_of
from mkdm.scoring import Template
from mkdm.train.rows import TrainingRows


class TokenMatcher(nn.Module):
    """A header on the states that enter a student's last layer, and its loss.

    With separate layers it stands on the states that leave the first layer that sees query and passage together.

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
        if student.config.separate_layers:
            layer = layers_of(student.encoder)[student.config.separate_layers + 1]
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
    ids, starts = rows.input_ids[:, : int(rows.lengths.max())], template.query_start
    place = np.arange(ids.shape[1])
    ends = (starts + rows.query_lengths)[:, None]
    is_query = (place >= starts) & (place < ends)
    in_passage = (place >= ends) & (place < rows.lengths[:, None])
    longest = int(rows.query_lengths.max(initial=0))
    query = ids[:, starts : starts + longest, None]  # [B, longest query, 1]
    occurs = np.zeros(ids.shape, dtype=np.float32)
    occurs[:, starts : starts + longest] = ((query == ids[:, None]) & in_passage[:, None]).any(axis=2)
    return is_query, occurs * is_query
