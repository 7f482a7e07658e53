"""The last layer of encoders with rotary positions, for the first position alone, where no other is read.

It projects keys for all positions and all else for that one: with Σ_j a_j (W_v x_j) = W_v (Σ_j a_j x_j) inputs are
summed before values are projected. Keys are turned by their positions, so that they cannot be summed likewise. Of a
layer of ModernBERT-base, 8.5·H² a token, 1·H² is left.
"""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

_NORM_AFTER = ("gte", "nomic_bert", "jina_embeddings_v3")


@dataclass(frozen=True)
class LastLayer:
    """The parts of a layer, whatever its family calls them; norms stand before a block or after its residual sum."""

    query: nn.Linear
    key: nn.Linear
    value: nn.Linear
    out: nn.Linear
    heads: int
    mlp: nn.Module
    norms: tuple[nn.Module, nn.Module]
    norm_before: bool


class FirstOnlyLayer(nn.Module):
    """Stands in for the last layer; takes what that takes and gives [B, 1, H]."""

    def __init__(self, parts: LastLayer) -> None:
        super().__init__()
        value, bias = parts.value.weight.detach(), parts.value.bias
        per_head = value.view(parts.heads, -1, value.shape[1]).transpose(-1, -2).contiguous()
        self.query, self.key, self.out, self.mlp = parts.query, parts.key, parts.out, parts.mlp
        self.value = nn.Parameter(per_head, requires_grad=False)  # [h, H, d]
        self.value_bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)
        self.heads, self.width, self.norm_before = parts.heads, per_head.shape[-1], parts.norm_before
        self.norms = nn.ModuleList(parts.norms)

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        position_embeddings: tuple[Tensor, Tensor] | None = None,
        **_: Any,
    ) -> Tensor:
        """[B, L, H], a mask [B or 1, 1, L or 1, L], and cos and sin [1, L, d] -> [B, 1, H]."""
        first, second = self.norms
        inputs = first(hidden_states) if self.norm_before else hidden_states
        mask = None if attention_mask is None else attention_mask[:, :, :1]
        attended = hidden_states[:, :1] + self._attend(inputs, mask, position_embeddings or ())
        if self.norm_before:
            result: Tensor = attended + self.mlp(second(attended))
        else:
            attended = first(attended)
            result = second(attended + self.mlp(attended))
        return result

    def _attend(self, inputs: Tensor, mask: Tensor | None, turns: tuple[Tensor, ...]) -> Tensor:
        batch, length, _ = inputs.shape
        cos, sin = (one[:, None].float() for one in turns)
        query = self.query(inputs[:, :1]).view(batch, 1, self.heads, -1).transpose(1, 2)
        key = self.key(inputs).view(batch, length, self.heads, -1).transpose(1, 2)
        query = _turned(query, cos[:, :, :1], sin[:, :, :1])
        logits = torch.matmul(query, _turned(key, cos, sin).transpose(-1, -2)) * self.width**-0.5  # [B, h, 1, L]
        if mask is not None:
            keep = mask if mask.dtype == torch.bool else mask >= 0
            logits = logits.masked_fill(~keep, torch.finfo(logits.dtype).min)
        mixed = torch.matmul(torch.softmax(logits, dim=-1)[:, :, 0], inputs)  # [B, h, H]
        context = torch.matmul(mixed.transpose(0, 1), self.value).transpose(0, 1).reshape(batch, 1, -1)
        result: Tensor = self.out(context if self.value_bias is None else context + self.value_bias)
        return result


def first_only_encoder(encoder: Any) -> Any:
    """The same encoder but for its last layer; None for a family whose last layer is not known here.

    Args:
        encoder: a GTE, NomicBERT, Jina v3 or EuroBERT encoder of transformers, in evaluation mode.
    """
    family = encoder.config.model_type
    if family not in (*_NORM_AFTER, "eurobert"):
        return None
    layer, heads = encoder.layers[-1], encoder.config.num_attention_heads
    attention = layer.self_attn
    if attention.k_proj.out_features != attention.q_proj.out_features:  # several heads share keys and values
        return None
    before = family == "eurobert"
    norms = (
        (layer.input_layernorm, layer.post_attention_layernorm)
        if before
        else (layer.post_attention_layernorm, layer.post_mlp_layernorm)
    )
    parts = (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj)
    last = FirstOnlyLayer(LastLayer(*parts, heads, layer.mlp, norms, before))
    lean = copy.copy(encoder)
    lean._modules = dict(encoder._modules)
    lean.layers = nn.ModuleList([*encoder.layers[:-1], last])
    return lean


def _turned(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions, in fp32 as in ModernBERT: [B, h, L, d]."""
    wide = states.float()
    half = wide.shape[-1] // 2
    swapped = torch.cat((-wide[..., half:], wide[..., :half]), dim=-1)
    return (wide * cos + swapped * sin).to(states.dtype)
