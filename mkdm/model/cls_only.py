"""The CLS-only last layer: of the last encoder layer, only position 0 is read, so only that one is computed.

Keys and values still come from every position; query, attention output and feed-forward network shrink from L rows to
one. With k = 3 layers that leaves out more than a quarter of the encoder's work.
"""

from collections.abc import Callable
from types import MethodType
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn


def keep_cls_only(encoder: nn.Module) -> Callable[[], None] | None:
    """Make the last layer of `encoder` return position 0 alone: [B, 1, H] where it returned [B, L, H].

    Parameters and their names stay as they are.

    Args:
        encoder: a BERT, RoBERTa, XLM-R, ELECTRA or DistilBERT encoder of transformers.

    Returns:
        What undoes it, or None for another architecture, which is left untouched.
    """
    last = last_layer(encoder)
    forward: Callable[..., Tensor]
    if all(_has(last, path) for path in _BERT_PARTS):
        forward = _bert_layer
    elif all(_has(last, path) for path in _DISTILBERT_PARTS):
        forward = _distilbert_layer
    else:
        return None
    last.forward = MethodType(forward, last)
    return lambda: delattr(last, "forward")


def last_layer(encoder: nn.Module) -> Any:
    """The last transformer layer of an encoder that keeps them where BERT or DistilBERT does, else None."""
    stack = getattr(encoder, "encoder", None) or getattr(encoder, "transformer", None)
    layers = getattr(stack, "layer", None)
    return layers[-1] if isinstance(layers, nn.ModuleList) and len(layers) else None


_BERT_PARTS = (
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output",
    "feed_forward_chunk",
)
_DISTILBERT_PARTS = (
    "attention.q_lin",
    "attention.k_lin",
    "attention.v_lin",
    "attention.out_lin",
    "sa_layer_norm",
    "ffn",
    "output_layer_norm",
)


def _has(module: nn.Module, path: str) -> bool:
    part: Any = module
    for name in path.split("."):
        part = getattr(part, name, None)
        if part is None:
            return False
    return True


def _attend(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, head_size: int, dropout: nn.Dropout
) -> Tensor:
    """One query row against all keys: [B, 1, H], [B, L, H], [B, L, H] -> [B, 1, H]."""

    def heads(x: Tensor) -> Tensor:
        return x.view(x.shape[0], x.shape[1], -1, head_size).transpose(1, 2)

    context = F.scaled_dot_product_attention(
        heads(query),
        heads(key),
        heads(value),
        attn_mask=None if mask is None else mask[:, :, :1],
        dropout_p=dropout.p if dropout.training else 0.0,
    )
    return context.transpose(1, 2).reshape(query.shape)


def _bert_layer(self: Any, hidden_states: Tensor, attention_mask: Tensor | None = None, *_: Any, **__: Any) -> Tensor:
    attention = self.attention.self
    cls = hidden_states[:, :1]
    context = _attend(
        attention.query(cls),
        attention.key(hidden_states),
        attention.value(hidden_states),
        attention_mask,
        attention.attention_head_size,
        attention.dropout,
    )
    output: Tensor = self.feed_forward_chunk(self.attention.output(context, cls))
    return output


def _distilbert_layer(self: Any, hidden_states: Tensor, attention_mask: Tensor | None = None, **_: Any) -> Tensor:
    attention = self.attention
    cls = hidden_states[:, :1]
    context = _attend(
        attention.q_lin(cls),
        attention.k_lin(hidden_states),
        attention.v_lin(hidden_states),
        attention_mask,
        attention.attention_head_size,
        attention.dropout,
    )
    attended = self.sa_layer_norm(attention.out_lin(context) + cls)
    output: Tensor = self.output_layer_norm(self.ffn(attended) + attended)
    return output
