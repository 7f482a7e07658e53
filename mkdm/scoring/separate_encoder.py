"""The lean encoder of a student with separate layers, in two parts: of a text alone, and of a pair of texts.

The text part is the embeddings, the first s layers, and the query, key and value of layer s + 1; the pair part is the
rest, over states that are gathered from those of the block's texts. Both rewritings of `lean_encoder` hold: the first
layer's projections are looked up, and the last layer attends for [CLS] alone over its own input. In H² a token, where a
layer of BERT has 12 (a multiply and an add counted as one), a text costs 9 + 12·(s − 1) + 3, a pair 9 + 12·(k − s − 2).
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mkdm.model import MkdmModel, PairModel, Separation, embed, layers_of, position_offset
from mkdm.scoring.lean_encoder import ClsLayer, FullLayer, Layer, Lookup, layer_parts, table_fits


class SeparateParts(nn.Module):
    """Both parts of a student.

    Attributes:
        text: `TextPart`.
        pair: `PairPart`.
        width: numbers that the text part gives a token, 4·H.
    """

    def __init__(self, text: "TextPart", pair: "PairPart", width: int) -> None:
        super().__init__()
        self.text, self.pair, self.width = text, pair, width


def separate_parts(model: PairModel) -> SeparateParts | None:
    """The two parts of a student's encoder, with its headers; its weights are shared.

    Args:
        model: in fp32, in evaluation mode, with separate layers.

    Returns:
        None for layers of another architecture.
    """
    separation = model.separation
    assert separation is not None
    try:
        layers = [layer_parts(one) for one in layers_of(model.encoder)]
        text = TextPart(model.encoder, layers, separation)
        return SeparateParts(text, PairPart(model, layers, separation), 4 * layers[0].query.in_features)
    except (AttributeError, TypeError, RuntimeError):  # parts of other names, kinds or shapes
        return None


class TextPart(nn.Module):
    """Query or passage parts alone, up to what layer s + 1 needs of them."""

    def __init__(self, encoder: Any, layers: list[Layer], separation: Separation) -> None:
        super().__init__()
        self.lookup = None
        if getattr(encoder, "embeddings_project", None) is None and table_fits(encoder.embeddings):
            self.lookup = Lookup(encoder.embeddings, layers[0])
        self.embedding = _Embedding(encoder) if self.lookup is None else None
        self.layers = nn.ModuleList(
            FullLayer(layer, self.lookup is None or number > 0)
            for number, layer in enumerate(layers[: separation.layers])
        )
        following = layers[separation.layers]
        self.project = nn.ModuleList((following.query, following.key, following.value))

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        position_ids: Tensor,
        token_type_ids: Tensor | None = None,
    ) -> Tensor:
        """int64[B, L] of B parts -> float[B, L, 4·H]: states, and the next layer's queries, keys and values."""
        mask = attention_mask[:, None, None, :].bool()  # [B, 1, 1, L]
        projected: list[Tensor] = []
        if self.lookup is not None:
            hidden, projected = self.lookup(input_ids, token_type_ids, position_ids)
        else:
            hidden = self.embedding(input_ids, position_ids, token_type_ids)  # type: ignore[misc]
        for layer in self.layers:
            hidden = layer(hidden, mask, projected)
            projected = []
        return torch.cat((hidden, *(part(hidden) for part in self.project)), dim=-1)


class _Embedding(nn.Module):
    """What enters the first layer, as the encoder itself computes it."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.embeddings = encoder.embeddings
        self.embeddings_project = getattr(encoder, "embeddings_project", None)
        self.offset = position_offset(encoder)

    def forward(self, input_ids: Tensor, position_ids: Tensor, token_type_ids: Tensor | None) -> Tensor:
        return embed(self, input_ids, position_ids + self.offset, token_type_ids)


class PairPart(nn.Module):
    """Layers s + 1 to k for [CLS], and the headers."""

    def __init__(self, model: PairModel, layers: list[Layer], separation: Separation) -> None:
        super().__init__()
        first, last = separation.layers, len(layers) - 1
        self.layers = nn.ModuleList(FullLayer(layers[number], number > first) for number in range(first, last))
        self.last = ClsLayer(layers[last])
        self.headers = _Headers(model)

    def forward(self, states: Tensor, index: Tensor, attention_mask: Tensor) -> Tensor:
        """Score B pairs of padded length L.

        Args:
            states: float[T, 4·H], of all tokens of the texts.
            index: int64[B, L], by token of the pair its row of `states`.
            attention_mask: int64[B, L], 1 at tokens and 0 at padding.

        Returns:
            float32[B, 2]: the score in [0, 1], and its logit.
        """
        return self.of_gathered(F.embedding(index, states), attention_mask)

    def of_gathered(self, gathered: Tensor, attention_mask: Tensor) -> Tensor:
        """The same of float[B, L, 4·H], the pairs' rows of the states."""
        mask = attention_mask[:, None, None, :].bool()
        hidden, *projected = gathered.chunk(4, dim=-1)  # [B, L, H] each
        for layer in self.layers:
            hidden = layer(hidden, mask, projected)
            projected = []
        result: Tensor = self.headers(self.last(hidden, mask)[:, 0])
        return result


class _Headers(nn.Module):
    """The headers of a student, without its encoder."""

    def __init__(self, model: PairModel) -> None:
        super().__init__()
        student = model.model
        assert isinstance(student, MkdmModel)
        self.golden_header, self.soft_headers = student.golden_header, student.soft_headers
        self._answers = (student, model)  # in a tuple, so that the encoder is no part of this module

    def forward(self, cls: Tensor) -> Tensor:
        student, model = self._answers
        return model.answers(student.answer(cls))
