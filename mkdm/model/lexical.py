"""The lexical part of a student: how much BM25 of its token ids moves the output. What a folder tells; needs no torch.

The encoder learns from mined pairs, whose negatives share their words with the query. Among all passages of a list,
shared words tell more than there: so the logit of output (6) moves by w · (ln((1 + BM25) / (1 + most)) − c). BM25
(Robertson and Zaragoza, The Probabilistic Relevance Framework, 2009) is that of the query's distinct tokens in the
passage, as both were cut, and most the sum of these tokens' weights, which it never reaches; w is the student's
`lexical_weight`, and c the mean of that logarithm over the pairs that its table came from. What a query alone decides
leaves the order of its passages as it is, and makes scores of different queries more alike.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from mkdm.errors import ConfigError, ModelError
from mkdm.model.folder import read_json

K1, B = 1.2, 0.75
"""How soon a repeated token counts no more, and how much longer passages count less. No version of a student tells
them, so they never change; those of the prefilter (`mkdm.text.block_scores`) may."""
TABLE = "lexical.token_weights"
"""The tensor of a student's weights that holds its table."""


@dataclass(frozen=True)
class Lexical:
    """The lexical part of a student.

    Attributes:
        weight: w, above 0.
        centre: c, the mean of ln((1 + BM25) / (1 + most)) where the table came from.
        passage_length: tokens of a passage in the mean, without special ones; above 0.
        separator_id: the token that ends the query; the passage stands after the first one of a pair.
        token_weights: float32[V], by token id ln(1 + (N − df + 0.5) / (df + 0.5)) of a token in df of N passages.
    """

    weight: float
    centre: float
    passage_length: float
    separator_id: int
    token_weights: NDArray[np.float32]

    def damping(self, lengths: Any) -> Any:
        """What a token's count is held against, count / (count + damping), in passages of so many tokens."""
        return K1 * ((1 - B) + B / self.passage_length * lengths)


def check_lexical(weight: float, centre: float, passage_length: float, separator_id: int | None) -> None:
    """Check what a config tells of the lexical part.

    Raises:
        ConfigError: it cannot work.
    """
    if not 0 <= weight < float("inf"):
        raise ConfigError(f"lexical_weight is {weight}; it must be a number of at least 0")
    if not weight:
        return
    if not np.isfinite(centre) or not 0 < passage_length < float("inf"):
        raise ConfigError(
            f"a lexical weight needs a finite lexical_centre, here {centre}, and a lexical_length above 0, here "
            f"{passage_length}"
        )
    if separator_id is None:
        raise ConfigError("a lexical weight needs a separator between query and passage: the tokenizer has none")


def read_lexical(folder: str | Path) -> Lexical | None:
    """The lexical part of a model folder; None for a teacher, and for a student without one.

    Raises:
        ModelError: it cannot work, or a file cannot be read.
    """
    path = Path(folder) / "config.json"
    config: dict[str, Any] = read_json(path)
    if config.get("model_type") != "mkdm" or not config.get("lexical_weight"):
        return None
    try:
        weight, centre, length = (float(config.get(f"lexical_{name}", 0)) for name in ("weight", "centre", "length"))
        check_lexical(weight, centre, length, config.get("separator_id"))
    except (ConfigError, TypeError, ValueError) as error:
        raise ModelError(f"{path}: {error}: train or copy the student again") from error
    table, size = _table(Path(folder)), (config.get("encoder_config") or {}).get("vocab_size")
    if table.shape != (size,):
        raise ModelError(f"{TABLE} at {folder} has shape {list(table.shape)}, vocab_size is {size}: copy it again")
    return Lexical(weight, centre, length, int(config["separator_id"]), table)


def _table(folder: Path) -> NDArray[np.float32]:
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="numpy") as file:
                if TABLE in set(file.keys()):
                    return np.asarray(file.get_tensor(TABLE), dtype=np.float32)
        except (OSError, SafetensorError, TypeError) as error:
            raise ModelError(f"{path} cannot be read ({error}): copy the model again") from error
    raise ModelError(f"the weights at {folder} lack {TABLE}, by which its config.json weighs words: copy it again")
