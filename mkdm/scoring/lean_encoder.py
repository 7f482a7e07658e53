"""The encoder with nothing computed that its [CLS] state does not need: for scoring, never for training.

Two rewritings, neither of which changes the result but for rounding (H is the hidden size; a layer of BERT costs
24·H² a token):

1. The last layer computes position 0 alone, and projects neither keys nor values. With q = W_q x_0 + b_q of one head,
   q · (W_k x_j + b_k) = (W_kᵀ q) · x_j + a constant that softmax ignores, and Σ_j a_j (W_v x_j + b_v) =
   W_v (Σ_j a_j x_j) + b_v: it attends over the layer's input itself. Next to nothing of the layer's 24·H² is left.
2. The first layer's query, key and value are looked up, not computed: 6·H² less. LayerNorm(e) = e'/σ · γ + β, where
   e' = e − mean(e) is the sum of a token's, a position's and a type's row, each less its own mean. So
   W LayerNorm(e) + b is the sum of three rows of tables made once, W (γ · row), over σ, plus the constant W β + b.

Of a BERT of 3 layers, 42·H² of 72·H² a token are left.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPooling

from mkdm.scoring.memory import LOOKUP_BYTES


@dataclass(frozen=True)
class Layer:
    """A transformer layer's parts, whatever the family calls them; the norms follow the residual sums, as in BERT."""

    query: nn.Linear
    key: nn.Linear
    value: nn.Linear
    heads: int
    output: nn.Linear
    output_norm: nn.LayerNorm
    up: nn.Linear
    activation: Callable[[Tensor], Tensor]
    down: nn.Linear
    down_norm: nn.LayerNorm


def lean_encoder(encoder: Any) -> "LeanEncoder | None":
    """An encoder with the same weights that answers for position 0 alone.

    Args:
        encoder: a BERT, RoBERTa, XLM-R, ELECTRA or DistilBERT encoder of transformers, in fp32, in evaluation mode.

    Returns:
        None for another architecture.
    """
    try:
        stack = encoder.encoder if hasattr(encoder, "encoder") else encoder.transformer
        return LeanEncoder(encoder, [layer_parts(one) for one in stack.layer])
    except (AttributeError, TypeError, RuntimeError):  # parts of other names, kinds or shapes
        return None


class LeanEncoder(nn.Module):
    """Stands in for the encoder of a model of transformers, at its place in that model.

    `last_hidden_state` is [B, 1, H], of position 0.
    """

    def __init__(self, encoder: Any, layers: list[Layer]) -> None:
        super().__init__()
        self.config = encoder.config
        self.pooler = getattr(encoder, "pooler", None)
        self.projection = getattr(encoder, "embeddings_project", None)
        self.lookup = None
        if len(layers) > 1 and self.projection is None and table_fits(encoder.embeddings):
            self.lookup = Lookup(encoder.embeddings, layers[0])
        self.embeddings = encoder.embeddings if self.lookup is None else None
        self.layers = nn.ModuleList(
            FullLayer(layer, self.lookup is None or number > 0) for number, layer in enumerate(layers[:-1])
        )
        self.last = ClsLayer(layers[-1])

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None, **_: Any
    ) -> BaseModelOutputWithPooling:
        """int64[B, L] inputs as for the encoder that it stands in for; a mask of None means no padding."""
        mask = None if attention_mask is None else attention_mask[:, None, None, :].bool()  # [B, 1, 1, L]
        projected: list[Tensor] = []
        if self.lookup is not None:
            hidden, projected = self.lookup(input_ids, token_type_ids)
        else:
            types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
            hidden = self.embeddings(input_ids=input_ids, **types)  # type: ignore[misc]
            hidden = hidden if self.projection is None else self.projection(hidden)
        for layer in self.layers:
            hidden = layer(hidden, mask, projected)
            projected = []
        cls = self.last(hidden, mask)
        pooled = None if self.pooler is None else self.pooler(cls)
        return BaseModelOutputWithPooling(last_hidden_state=cls, pooler_output=pooled)


class Lookup(nn.Module):
    """Embeddings, and the first layer's query, key and value, as sums of table rows (rewriting 2)."""

    def __init__(self, embeddings: Any, layer: Layer) -> None:
        super().__init__()
        norm: nn.LayerNorm = embeddings.LayerNorm
        scale, shift = norm.weight.detach().double(), norm.bias.detach().double()
        words, positions = _centred(embeddings.word_embeddings), _centred(embeddings.position_embeddings)
        places = positions
        if hasattr(embeddings, "token_type_embeddings"):  # rows by type, then by position
            places = (_centred(embeddings.token_type_embeddings)[:, None] + positions).flatten(0, 1)
        self.num_positions = len(positions)
        self.eps = norm.eps
        self.tokens, self.places, self.shifts = nn.ParameterList(), nn.ParameterList(), nn.ParameterList()
        for part in (layer.query, layer.key, layer.value):
            weight = part.weight.detach().double()
            self.tokens.append(_constant(words @ (weight * scale).T))
            self.places.append(_constant(places @ (weight * scale).T))
            self.shifts.append(_constant(weight @ shift + part.bias.detach().double()))
        self.tokens.append(_constant(words))
        self.places.append(_constant(places))
        self.norm = norm

    def round_tables(self) -> None:
        """Keep the tables as bf16, in half the memory; all else stays as it is."""
        for row in (*self.tokens, *self.places):
            row.data = row.data.bfloat16()

    def forward(
        self, input_ids: Tensor, token_type_ids: Tensor | None, position_ids: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """int64[B, L] -> the embeddings [B, L, H], and query, key and value, [B, L, H] each.

        Args:
            position_ids: int64[B, L]; from 0 on where they are not given.
        """
        places = torch.arange(input_ids.shape[1], device=input_ids.device) if position_ids is None else position_ids
        if token_type_ids is not None:
            places = places + token_type_ids * self.num_positions
        kind = self.norm.weight.dtype
        *projected, hidden = (
            (F.embedding(input_ids, tokens) + F.embedding(places, rows)).to(kind)
            for tokens, rows in zip(self.tokens, self.places, strict=True)
        )
        deviation = torch.rsqrt(hidden.float().square().mean(dim=-1, keepdim=True) + self.eps).to(hidden.dtype)
        return self.norm(hidden), [rows * deviation + shift for rows, shift in zip(projected, self.shifts, strict=True)]


class FullLayer(nn.Module):
    """A layer that computes every position; query, key and value are given where they are known already."""

    def __init__(self, layer: Layer, project: bool) -> None:
        super().__init__()
        self.project = nn.ModuleList((layer.query, layer.key, layer.value) if project else ())
        self.heads = layer.heads
        self.rest = _Rest(layer)

    def forward(self, hidden: Tensor, mask: Tensor | None, projected: list[Tensor]) -> Tensor:
        batch, length, size = hidden.shape
        projected = projected or [part(hidden) for part in self.project]
        query, key, value = (part.view(batch, length, self.heads, -1).transpose(1, 2) for part in projected)
        context = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        result: Tensor = self.rest(context.transpose(1, 2).reshape(batch, length, size), hidden)
        return result


class ClsLayer(nn.Module):
    """The last layer, for position 0 alone (rewriting 1)."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        size = layer.query.in_features
        self.scale = (size / layer.heads) ** -0.5
        self.query = layer.query
        per_head = (layer.heads, size // layer.heads, size)
        self.key = nn.Parameter(layer.key.weight.detach().view(per_head), requires_grad=False)  # [h, d, H]
        self.value = nn.Parameter(
            layer.value.weight.detach().view(per_head).transpose(-1, -2).contiguous(), requires_grad=False
        )
        self.value_bias = nn.Parameter(layer.value.bias.detach(), requires_grad=False)
        self.heads = layer.heads
        self.rest = _Rest(layer)

    def forward(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        batch, _, size = hidden.shape
        cls = hidden[:, :1]
        query = self.query(cls).view(batch, self.heads, -1).transpose(0, 1)  # [h, B, d]
        absorbed = torch.matmul(query, self.key).transpose(0, 1)  # [B, h, H]
        logits = torch.matmul(absorbed, hidden.transpose(-1, -2)) * self.scale  # [B, h, L]
        if mask is not None:
            logits = logits.masked_fill(~mask[:, 0], torch.finfo(logits.dtype).min)
        mixed = torch.matmul(torch.softmax(logits, dim=-1), hidden)  # [B, h, H]
        context = torch.matmul(mixed.transpose(0, 1), self.value).transpose(0, 1)  # [B, h, d]
        result: Tensor = self.rest(context.reshape(batch, 1, size) + self.value_bias, cls)
        return result


class _Rest(nn.Module):
    """What follows attention in a layer."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.output, self.output_norm = layer.output, layer.output_norm
        self.up, self.activation, self.down, self.down_norm = layer.up, layer.activation, layer.down, layer.down_norm

    def forward(self, context: Tensor, hidden: Tensor) -> Tensor:
        attended = self.output_norm(self.output(context) + hidden)
        result: Tensor = self.down_norm(self.down(self.activation(self.up(attended))) + attended)
        return result


def _centred(embedding: nn.Embedding) -> Tensor:
    """float64[N, H]: each row less its own mean."""
    rows = embedding.weight.detach().double()
    return rows - rows.mean(dim=1, keepdim=True)


def _constant(values: Tensor) -> nn.Parameter:
    return nn.Parameter(values.float(), requires_grad=False)


def table_fits(embeddings: Any) -> bool:
    """Whether rewriting 2 knows these embeddings, and their tables are not too large."""
    if hasattr(embeddings, "padding_idx"):  # RoBERTa's, whose positions depend on the padding
        return False
    words: Tensor = embeddings.word_embeddings.weight
    return words.numel() * 4 * 4 <= LOOKUP_BYTES


def layer_parts(layer: Any) -> Layer:
    """The parts of a layer of BERT or DistilBERT and their kin.

    Raises:
        AttributeError: it is another one.
    """
    return _distilbert_layer(layer) if hasattr(layer, "sa_layer_norm") else _bert_layer(layer)


def _bert_layer(layer: Any) -> Layer:
    attention = layer.attention.self
    return Layer(
        query=attention.query,
        key=attention.key,
        value=attention.value,
        heads=attention.num_attention_heads,
        output=layer.attention.output.dense,
        output_norm=layer.attention.output.LayerNorm,
        up=layer.intermediate.dense,
        activation=layer.intermediate.intermediate_act_fn,
        down=layer.output.dense,
        down_norm=layer.output.LayerNorm,
    )


def _distilbert_layer(layer: Any) -> Layer:
    attention = layer.attention
    return Layer(
        query=attention.q_lin,
        key=attention.k_lin,
        value=attention.v_lin,
        heads=attention.n_heads,
        output=attention.out_lin,
        output_norm=layer.sa_layer_norm,
        up=layer.ffn.lin1,
        activation=layer.ffn.activation,
        down=layer.ffn.lin2,
        down_norm=layer.output_layer_norm,
    )
