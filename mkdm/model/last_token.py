"""Models that read a pair as a text and answer at its end: decoders, and encoder-decoders such as T5.

Padding stands on the right. A decoder's token sees only what stands before it, so that padding changes nothing, and
needs no mask; positions count from the first token.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import SequenceClassifierOutput


class LastTokenModel(nn.Module):
    """A decoder and a header over the state of its last token.

    Args:
        decoder: without its header.
        header: a linear layer [H] -> [n]: that of a classifier, or the rows of a language model's that are answers.
        pad_id: token that a classifier of transformers skips from the end, even where a text has it; None for none.
    """

    def __init__(self, decoder: Any, header: nn.Linear, pad_id: int | None) -> None:
        super().__init__()
        self.base_model = decoder
        self.config = decoder.config
        self.header = header
        self.pad_id = pad_id

    def get_input_embeddings(self) -> Any:
        return self.base_model.get_input_embeddings()

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **_: Any) -> SequenceClassifierOutput:
        """int64[B, L] inputs, padded on the right -> logits [B, n]."""
        masked = (
            {"attention_mask": attention_mask} if torch.jit.is_tracing() else {}
        )  # or transformers looks for packing
        states = self.base_model(input_ids=input_ids, use_cache=False, **masked).last_hidden_state
        real = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        if self.pad_id is not None:
            real = real * (input_ids != self.pad_id)
        last = (real * torch.arange(input_ids.shape[1], device=input_ids.device)).argmax(dim=1)
        state = states.gather(1, last[:, None, None].expand(-1, 1, states.shape[-1]))[:, 0]
        return SequenceClassifierOutput(logits=self.header(state))


class FirstAnswerModel(nn.Module):
    """An encoder-decoder and what it would answer first, of a few tokens.

    Args:
        model: for conditional generation.
        answers: ids of the tokens that may be answered; no logit of another is computed.
    """

    def __init__(self, model: Any, answers: tuple[int, ...]) -> None:
        super().__init__()
        model.lm_head = rows_of(model.lm_head, answers)
        self.base_model = model
        self.config = model.config

    def get_input_embeddings(self) -> Any:
        return self.base_model.get_input_embeddings()

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **_: Any) -> SequenceClassifierOutput:
        """int64[B, L] inputs -> logits [B, n] of the first token of the answer."""
        begin = torch.full_like(input_ids[:, :1], self.config.decoder_start_token_id)
        output = self.base_model(
            input_ids=input_ids, attention_mask=attention_mask, decoder_input_ids=begin, use_cache=False
        )
        return SequenceClassifierOutput(logits=output.logits[:, 0])


def rows_of(header: nn.Linear, rows: tuple[int, ...]) -> nn.Linear:
    """A linear layer of some rows of another, without a bias, which language models here have none of."""
    few = nn.Linear(header.in_features, len(rows), bias=False)
    few.weight = nn.Parameter(header.weight.detach()[list(rows)].clone(), requires_grad=False)
    return few
