"""What of a model becomes an IR file: one graph, or with separate layers that of texts and that of pairs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mkdm.errors import ModelError
from mkdm.model import PairModel
from mkdm.scoring import (
    PROBE,
    Block,
    Lookup,
    PairEncoder,
    PairTexts,
    SeparatePairEncoder,
    SeparateParts,
    probe,
    separate_parts,
)

Texts = tuple[Sequence[str], Sequence[str]]
Inputs = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Graph:
    """What becomes an IR file.

    Attributes:
        ending: of its name, after the precision.
        module: takes its inputs in the order of `example`, since a traced function has no keywords.
        example: by name, an input of each.
        samples: from queries and passages to the inputs that int8 is calibrated on.
        lookup: tables in it that bf16 and int8 hold as bf16.
        states: the input that bf16 and int8 take as bf16.
    """

    ending: str
    module: nn.Module
    example: dict[str, Tensor]
    samples: Callable[[Texts], list[Inputs]]
    lookup: Lookup | None = None
    states: str | None = None

    def stem(self, precision: str) -> str:
        """Its file's name at a precision, without an ending."""
        return f"{precision}{self.ending}"


class _Ordered(nn.Module):
    """A module with its inputs in a fixed order."""

    def __init__(self, module: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.module, self.names = module, list(names)

    def forward(self, *inputs: Tensor) -> Tensor:
        result: Tensor = self.module(**dict(zip(self.names, inputs, strict=True)))
        return result


class _Gathered(nn.Module):
    """The pair part over states that are gathered already: a file that gathers would convert all of them each time."""

    def __init__(self, parts: SeparateParts) -> None:
        super().__init__()
        self.pair = parts.pair

    def forward(self, gathered: Tensor, attention_mask: Tensor) -> Tensor:
        return self.pair.of_gathered(gathered, attention_mask)


def graphs_of(model: PairModel, encoder: PairEncoder) -> list[Graph]:
    """The graphs of a model on the CPU, in fp32; that of pairs comes first.

    Args:
        model: with its lean encoder, if it has one.

    Raises:
        ModelError: it has separate layers, but not the parts that are known.
    """
    if isinstance(encoder, SeparatePairEncoder):
        return _separate_graphs(model, encoder)

    def samples(texts: Texts) -> list[Inputs]:
        pairs = encoder.encode(*texts)
        batches = [encoder.batch(pairs, np.array([row])) for row in range(len(pairs.lengths))]
        return [{name: getattr(batch, name) for name in example} for batch in batches]

    example = probe(encoder)
    lookup: Any = getattr(model.encoder, "lookup", None)
    return [Graph("", _Ordered(model, list(example)), example, samples, lookup)]


def _separate_graphs(model: PairModel, encoder: SeparatePairEncoder) -> list[Graph]:
    parts = separate_parts(model)
    if parts is None:
        raise ModelError("OpenVINO cannot convert this model: its layers are of no known kind")
    parts.eval()

    def of_texts(texts: Texts, apart: bool) -> list[Inputs]:
        """What the text part takes: of all texts of some pairs at once, or of each alone."""
        found = _texts(encoder, texts)
        every = np.arange(len(found.ids))
        batches = [encoder.text_batch(found, chosen) for chosen in (every[:, None] if apart else [every])]
        return [{name: one for name, one in vars(batch).items() if one is not None} for batch in batches]

    def of_pairs(texts: Texts) -> Inputs:
        """What the pair part takes of a few pairs."""
        found = _texts(encoder, texts)
        (inputs,) = of_texts(texts, apart=False)
        with torch.inference_mode():
            read = parts.text(**_tensors(inputs)).numpy()[inputs["attention_mask"].astype(bool)]
        states = np.zeros((found.tokens, parts.width), dtype=np.float32)
        states[found.state_rows(np.arange(len(found.ids)))] = read
        batch = found.pair_batch(np.arange(len(texts[0])))
        return {"gathered": states[batch.index], "attention_mask": batch.attention_mask}

    def each_pair(texts: Texts) -> list[Inputs]:
        return [of_pairs(([query], [passage])) for query, passage in zip(*texts, strict=True)]

    example = _tensors(of_texts(PROBE, apart=False)[0])
    return [
        Graph("", _Gathered(parts), _tensors(of_pairs(PROBE)), each_pair, states="gathered"),
        Graph(
            "-text",
            _Ordered(parts.text, list(example)),
            example,
            lambda texts: of_texts(texts, apart=True),
            lookup=parts.text.lookup,
        ),
    ]


def _texts(encoder: SeparatePairEncoder, texts: Texts) -> PairTexts:
    block = Block.of_pairs(*texts)
    pairs = encoder.encode_block(block)
    return encoder.texts(pairs, block.places(), np.arange(len(block)))


def _tensors(inputs: Inputs) -> dict[str, Tensor]:
    return {name: torch.from_numpy(one) for name, one in inputs.items()}
