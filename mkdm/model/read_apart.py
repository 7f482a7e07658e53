"""The encoder of a student with separate layers, by attention masks alone: for training, and for others to equal."""

from typing import Any

import torch
from torch import Tensor

from mkdm.model.separation import Separation


def read_apart(
    encoder: Any,
    separation: Separation,
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    token_type_ids: Tensor | None = None,
) -> Tensor:
    """What the last layer gives: float[B, L, H], or [B, 1, H] after `keep_cls_only`.

    Args:
        encoder: of a family in `SEPARABLE`.
        input_ids: int64[B, L], [CLS] query [SEP] passage [SEP] and padding.
        attention_mask: int64[B, L], 1 at tokens and 0 at padding.
        token_type_ids: int64[B, L], for the encoders that know them.
    """
    there = torch.ones_like(input_ids) if attention_mask is None else attention_mask
    there = there.bool()
    place = torch.arange(input_ids.shape[1], device=input_ids.device)
    start = (input_ids == separation.separator_id).int().argmax(dim=1, keepdim=True) + 1  # [B, 1], of the passage part
    of_passage = place >= start  # [B, L]
    positions = torch.where(of_passage, place - start + separation.passage_position, place)
    positions = torch.where(there, positions, 0) + position_offset(encoder)
    together = there[:, None, None, :].expand(-1, 1, len(place), -1)  # [B, 1, L, L]
    apart = together & (of_passage[:, :, None] == of_passage[:, None, :])[:, None]
    hidden = embed(encoder, input_ids, positions, token_type_ids)
    if encoder.config._attn_implementation == "eager":  # which adds its mask
        together, apart = (
            torch.zeros_like(mask, dtype=hidden.dtype).masked_fill(~mask, torch.finfo(hidden.dtype).min)
            for mask in (together, apart)
        )
    for number, layer in enumerate(layers_of(encoder)):
        hidden = layer(hidden, apart if number < separation.layers else together)
    return hidden


def embed(encoder: Any, input_ids: Tensor, positions: Tensor, token_type_ids: Tensor | None) -> Tensor:
    """The states that enter the first layer, float[B, L, H].

    Args:
        positions: int64[B, L] or [1, L], rows of the position table; see `position_offset`.
    """
    types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
    hidden = encoder.embeddings(input_ids=input_ids, position_ids=positions, **types)
    projection = getattr(encoder, "embeddings_project", None)  # ELECTRA's
    states: Tensor = hidden if projection is None else projection(hidden)
    return states


def position_offset(encoder: Any) -> int:
    """The row of the position table that stands for position 0: RoBERTa and its kin skip those up to padding."""
    padding = encoder.embeddings.position_embeddings.padding_idx
    return 0 if padding is None else int(padding) + 1


def layers_of(encoder: Any) -> Any:
    """The transformer layers of an encoder that keeps them where BERT or DistilBERT does."""
    stack = encoder.encoder if hasattr(encoder, "encoder") else encoder.transformer
    return stack.layer
