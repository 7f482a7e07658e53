"""ModernBERT's encoder for scoring: masks that no row is empty under, and a last layer that computes what is read.

In transformers a local layer's mask leaves no key at all to a padded position that is further from the text than the
window reaches. Softmax makes no numbers of such a row in OpenVINO, and they reach the text in the next layer, since
zero times what is no number is none either. Here every position sees itself, which changes no position of the text.

Where the first position alone is read, the last layer projects keys for all positions and all else for that one: with
Σ_j a_j (W_v x_j) = W_v (Σ_j a_j x_j) it sums inputs before it projects values. Keys are turned by their positions, so
that they cannot be summed likewise. Of a layer of ModernBERT-base, 8.5·H² a token, 1·H² is left.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import ModernBertModel
from transformers.modeling_outputs import BaseModelOutput


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
        self.last = _FirstOnlyLayer(encoder.layers[-1]) if first_only else None
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
            kind = self.last.attention_type
            mask = masks[kind]
            hidden = self.last(hidden, None if mask is None else mask[:, :, :1], turns[kind])
        return BaseModelOutput(last_hidden_state=self.final_norm(hidden))

    def _mask(self, kind: str, places: Tensor, real: Tensor | None) -> Tensor | None:
        """bool[B or 1, 1, L or 1, L], True where a position sees another; None where it sees all."""
        keys = None if real is None else real[:, None, None, :].bool()
        if kind == "full_attention":
            return keys
        apart = (places[:, None] - places[None, :]).abs()
        near: Tensor = (apart <= self.config.sliding_window)[None, None]
        return near if keys is None else (near & keys) | (apart == 0)[None, None]


class _FirstOnlyLayer(nn.Module):
    """The last layer, for position 0 alone."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        weight, bias = layer.attn.Wqkv.weight.detach(), layer.attn.Wqkv.bias
        size = weight.shape[1]
        self.attention_type = layer.attention_type
        self.norm, self.out, self.mlp_norm, self.mlp = layer.attn_norm, layer.attn.Wo, layer.mlp_norm, layer.mlp
        self.heads, self.width = size // layer.attn.head_dim, layer.attn.head_dim
        self.query, self.key = _linear(weight[:size], bias, 0), _linear(weight[size : 2 * size], bias, 1)
        per_head = weight[2 * size :].view(self.heads, self.width, size).transpose(-1, -2).contiguous()
        self.value = nn.Parameter(per_head, requires_grad=False)  # [h, H, d]
        self.value_bias = None if bias is None else nn.Parameter(bias.detach()[2 * size :], requires_grad=False)

    def forward(self, hidden: Tensor, mask: Tensor | None, turns: tuple[Tensor, Tensor]) -> Tensor:
        """[B, L, H], mask [B or 1, 1, 1, L] and cos and sin [1, L, d] -> [B, 1, H]."""
        batch, length, size = hidden.shape
        inputs = self.norm(hidden)
        cos, sin = (one[:, None].float() for one in turns)
        query = self.query(inputs[:, :1]).view(batch, 1, self.heads, -1).transpose(1, 2)
        key = self.key(inputs).view(batch, length, self.heads, -1).transpose(1, 2)
        query = _turned(query, cos[:, :, :1], sin[:, :, :1])
        logits = torch.matmul(query, _turned(key, cos, sin).transpose(-1, -2)) * self.width**-0.5  # [B, h, 1, L]
        if mask is not None:
            logits = logits.masked_fill(~mask, torch.finfo(logits.dtype).min)
        mixed = torch.matmul(torch.softmax(logits, dim=-1)[:, :, 0], inputs)  # [B, h, H]
        context = torch.matmul(mixed.transpose(0, 1), self.value).transpose(0, 1).reshape(batch, 1, size)
        context = context if self.value_bias is None else context + self.value_bias
        attended = hidden[:, :1] + self.out(context)
        result: Tensor = attended + self.mlp(self.mlp_norm(attended))
        return result


def modernbert_encoder(encoder: Any, first_only: bool) -> ModernBertEncoder | None:
    """An encoder with the same weights that answers the same; None for another architecture."""
    return ModernBertEncoder(encoder, first_only) if isinstance(encoder, ModernBertModel) else None


def _linear(weight: Tensor, bias: Tensor | None, part: int) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], len(weight), bias=bias is not None)
    linear.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        linear.bias = nn.Parameter(bias.detach()[part * len(weight) : (part + 1) * len(weight)], requires_grad=False)
    return linear


def _turned(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions, in fp32 as in transformers: [B, h, L, d]."""
    wide = states.float()
    half = wide.shape[-1] // 2
    swapped = torch.cat((-wide[..., half:], wide[..., :half]), dim=-1)
    return (wide * cos + swapped * sin).to(states.dtype)
