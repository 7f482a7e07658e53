"""What makes a model's inputs of pairs of texts: by the tokenizer's template, in words of its own, or text by text."""

from typing import Any

from mkdm.model import Separation, Wording
from mkdm.scoring.encoding import PairEncoder
from mkdm.scoring.prompted import PromptedEncoder
from mkdm.scoring.separate_texts import SeparatePairEncoder


def pair_encoder(
    tokenizer: Any, max_length: int, wording: Wording | None = None, separation: Separation | None = None
) -> PairEncoder:
    """What encodes the pairs of a model.

    Args:
        wording: how the model is asked; None as its tokenizer joins two texts.
        separation: how its first layers read query and passage apart; None where they do not.

    Raises:
        ModelError: as for `PairEncoder`, `PromptedEncoder` and `SeparatePairEncoder`.
    """
    if separation is not None:
        return SeparatePairEncoder(tokenizer, max_length, separation)
    return PairEncoder(tokenizer, max_length) if wording is None else PromptedEncoder(tokenizer, max_length, wording)
