"""What runs the model on a padded batch: a backend is a module with `load(folder, precision, threads, streams)`."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mkdm.model import Lexical, Separation, Wording
from mkdm.scoring.encoder_choice import pair_encoder
from mkdm.scoring.encoding import Batch, PairEncoder
from mkdm.scoring.separate_texts import PairBatch, TextBatch

WINDOW = 4096


class Backend(Protocol):
    """Runs one model at one precision on one device.

    Attributes:
        precision: fp32, bf16, fp16 or int8, after `auto` was settled.
        token_budget: padded tokens of a batch that suit the device.
        window: pairs that are sorted together: enough for tight batches, few enough to hold their token ids.
        streams: how many threads may call `score` at once, with profit.
        out_of_memory: what `score` raises for a batch that is too large for the device.
    """

    precision: str
    token_budget: int
    window: int
    streams: int
    out_of_memory: tuple[type[Exception], ...]

    def score(self, batch: Batch) -> NDArray[np.float32]:
        """int64[B, L] inputs -> float32[B, 2]: the score in [0, 1], and its logit."""
        ...


class TextReader(ABC):
    """What runs a student with separate layers in two parts: each text of a block once, then pairs over their states.

    Its attributes are those of `Backend`.

    Attributes:
        state_tokens: tokens whose states may be held at once.
    """

    precision: str
    token_budget: int
    window: int
    streams: int
    out_of_memory: tuple[type[Exception], ...]
    state_tokens: int

    @abstractmethod
    def new_states(self, tokens: int) -> Any:
        """Room for the states of so many tokens; all of it is 0."""

    @abstractmethod
    def read(self, batch: TextBatch, states: Any, rows: NDArray[np.int64]) -> None:
        """Put the states of B texts into their rows; safe to call from several threads.

        Args:
            rows: int64[tokens], by token of the batch, text by text and padding left out.
        """

    @abstractmethod
    def score_pairs(self, states: Any, batch: PairBatch) -> NDArray[np.float32]:
        """float32[B, 2], score and logit of B pairs; safe to call from several threads."""


@dataclass(frozen=True)
class LoadedBackend:
    """A backend with the tokenizer, token limit, version and wording of the model that it runs.

    Attributes:
        separation: how the model's first layers read query and passage apart; None where they do not.
        lexical: the model's lexical part, which the backend leaves out; None where there is none.
    """

    backend: Backend | TextReader
    tokenizer: Any
    max_length: int
    model_version: str
    wording: Wording | None = None
    separation: Separation | None = None
    lexical: Lexical | None = None

    def encoder(self, max_length: int | None = None) -> PairEncoder:
        """What makes the model's inputs of pairs of texts."""
        return pair_encoder(self.tokenizer, max_length or self.max_length, self.wording, self.separation)
