"""The lexical part of a student as a module, over padded pairs of token ids; see `mkdm.model.lexical`."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from mkdm.model.lexical import Lexical


class LexicalModule(nn.Module):
    """How far the lexical part moves the logits of padded pairs, in fp32.

    Its buffer `token_weights`, float32[V], is saved with the student's weights.

    Args:
        lexical: all but its table, which is 0 here; see `of`.
        size: V, token ids that the student knows.
    """

    token_weights: Tensor

    def __init__(self, lexical: Lexical, size: int) -> None:
        super().__init__()
        self.lexical = replace(lexical, token_weights=np.zeros(0, dtype=np.float32))
        self.register_buffer("token_weights", torch.zeros(size))

    @classmethod
    def of(cls, lexical: Lexical) -> "LexicalModule":
        """The module of a lexical part, with its table."""
        module = cls(lexical, len(lexical.token_weights))
        module.token_weights.copy_(torch.from_numpy(lexical.token_weights))
        return module

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """float32[B], w · (ln((1 + BM25) / (1 + most)) − c) of B pairs of padded length L.

        Args:
            input_ids: int64[B, L], [CLS] query [SEP] passage [SEP] and padding.
            attention_mask: int64[B, L], 1 at tokens and 0 at padding.
        """
        lexical = self.lexical
        there = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        separator = input_ids == lexical.separator_id
        place = torch.arange(input_ids.shape[1], device=input_ids.device)
        end = separator.int().argmax(dim=1, keepdim=True)  # [B, 1], of the query part
        of_query = (place > 0) & (place < end)  # [B, L]; [CLS] stands first
        of_passage = (place > end) & there.bool() & ~separator
        same = input_ids[:, :, None] == input_ids[:, None, :]  # [B, L, L]
        counts = (same & of_passage[:, None, :]).sum(dim=2).float()  # of the token here, in the passage
        again = (same & of_query[:, None, :]).int().argmax(dim=2) < place  # it stood in the query before
        lengths = of_passage.sum(dim=1, keepdim=True).float()
        weights = self.token_weights.float()[input_ids] * (of_query & ~again)
        bm25 = (weights * counts / (counts + lexical.damping(lengths))).sum(dim=1)
        logs = torch.log1p(bm25) - torch.log1p(weights.sum(dim=1))
        moved: Tensor = lexical.weight * (logs - lexical.centre)
        return moved

    def plain(self) -> Lexical:
        """The same without torch."""
        return replace(self.lexical, token_weights=self.token_weights.detach().float().cpu().numpy().copy())
