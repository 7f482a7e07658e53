"""ModernBERT's encoder for scoring: masks that no row is empty under, and no more of its last layer than is read.

In transformers a local layer's mask leaves no key at all to a padded position that is further from the text than the
window reaches. Softmax makes no numbers of such a row in OpenVINO, and they reach the text in the next layer, since
zero times what is no number is none either. Here every position sees itself, which changes no position of the text.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import ModernBertModel
from transformers.modeling_outputs import BaseModelOutput

from mkdm.scoring.first_only import FirstOnlyLayer, LastLayer


class ModernBertEncoder(nn.Module):
    """Stands in for a `ModernBertModel`.

    Args:
        encoder: of transformers, in evaluation mode; its layers are used as they are.
        first_only: whether the first position alone is read; `last_hidden_state` is then [B, 1, H], else [B, L, H].
    """

    def __init__(self, encoder: Any, first_only: bool) -> None:
        super().__init__()
        self.config = encoder.config
        self.embeddings = encoder.embeddings
        self.rotary_emb = encoder.rotary_emb
        self.layers = nn.ModuleList(encoder.layers[:-1] if first_only else encoder.layers)
        self.last = FirstOnlyLayer(_last_layer(encoder.layers[-1])) if first_only else None
        self.last_kind = encoder.layers[-1].attention_type
        self.final_norm = encoder.final_norm

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **_: Any) -> BaseModelOutput:
        """int64[B, L] inputs; a mask of None means no padding."""
        hidden = self.embeddings(input_ids=input_ids)
        places = torch.arange(input_ids.shape[1], device=input_ids.device)
        kinds = sorted(set(self.config.layer_types))
        turns = {kind: self.rotary_emb(hidden, places[None], kind) for kind in kinds}
        masks = {kind: self._mask(kind, places, attention_mask) for kind in kinds}
        for layer in self.layers:
            kind = layer.attention_type
            hidden = layer(hidden, attention_mask=masks[kind], position_embeddings=turns[kind])
        if self.last is not None:
            hidden = self.last(hidden, masks[self.last_kind], turns[self.last_kind])
        return BaseModelOutput(last_hidden_state=self.final_norm(hidden))

    def _mask(self, kind: str, places: Tensor, real: Tensor | None) -> Tensor | None:
        """bool[B or 1, 1, L or 1, L], True where a position sees another; None where it sees all."""
        keys = None if real is None else real[:, None, None, :].bool()
        if kind == "full_attention":
            return keys
        apart = (places[:, None] - places[None, :]).abs()
        near: Tensor = (apart <= self.config.sliding_window)[None, None]
        return near if keys is None else (near & keys) | (apart == 0)[None, None]


def _last_layer(layer: Any) -> LastLayer:
    weight, bias = layer.attn.Wqkv.weight.detach(), layer.attn.Wqkv.bias
    query, key, value = (
        _linear(rows, None if bias is None else bias.detach().chunk(3)[part])
        for part, rows in enumerate(weight.chunk(3))
    )
    heads, norms = weight.shape[1] // layer.attn.head_dim, (layer.attn_norm, layer.mlp_norm)
    return LastLayer(query, key, value, layer.attn.Wo, heads, layer.mlp, norms, True)


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], len(weight), bias=bias is not None)
    linear.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        linear.bias = nn.Parameter(bias, requires_grad=False)
    return linear


def modernbert_encoder(encoder: Any, first_only: bool) -> ModernBertEncoder | None:
    """An encoder with the same weights that answers the same; None for another architecture."""
    return ModernBertEncoder(encoder, first_only) if isinstance(encoder, ModernBertModel) else None
