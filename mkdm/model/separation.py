"""Separate layers: the first s layers of a student read query and passage apart. What a config tells; needs no torch.

Of k layers the first s let the query part, [CLS] query [SEP], and the passage part, passage [SEP], attend to
themselves alone, and the passage part's positions start at a fixed place. So a text's states after s layers, and the
queries, keys and values of layer s + 1, depend on that text alone: a block takes each of its texts through them once.
From layer s + 1 on both see each other. Relatives: PreTTR (arXiv 2004.14255), DeFormer (2005.00697), MORES
(2010.10137).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mkdm.errors import ConfigError, ModelError
from mkdm.model.folder import read_json

SEPARABLE = ("bert", "roberta", "xlm-roberta", "camembert", "electra", "distilbert")
"""Families whose layers are known to mix tokens by attention alone, over absolute positions."""
PASSAGE_POSITION = 24


@dataclass(frozen=True)
class Separation:
    """How a student reads its texts apart.

    Attributes:
        layers: s, at least 1.
        passage_position: where the positions of a passage start.
        separator_id: token id that ends the query part: the first one of a pair.
    """

    layers: int
    passage_position: int
    separator_id: int

    def passage_part(self, max_length: int) -> int:
        """Tokens of a passage part at most, its own special tokens included: what is left from its place on.

        So its cut does not depend on the query either. A query part longer than `passage_position` leaves less.

        Raises:
            ConfigError: less than two.
        """
        if max_length < self.passage_position + 2:
            raise ConfigError(
                f"{max_length} tokens leave no room for a passage that starts at position {self.passage_position}: "
                f"give at least {self.passage_position + 2}"
            )
        return max_length - self.passage_position


def check_separation(
    layers: int, passage_position: int, separator_id: int | None, num_layers: int, max_length: int, family: str
) -> None:
    """Check what a config tells of separate layers.

    s lies in 0 to k − 2: the last layer answers for [CLS] alone, so that with s = k − 1 no token but [CLS] would ever
    see the other text.

    Args:
        layers: s.
        num_layers: k.
        family: the encoder's model_type.

    Raises:
        ConfigError: it cannot work.
    """
    most = max(0, num_layers - 2)
    if not 0 <= layers <= most:
        raise ConfigError(
            f"separate_layers is {layers}; of {num_layers} layers 0 to {most} can be separate: one below the last, "
            f"which answers for [CLS] alone, must see both texts"
        )
    if not layers:
        return
    if family not in SEPARABLE:
        raise ConfigError(f"separate_layers needs an encoder of the families {', '.join(SEPARABLE)}, not {family}")
    if separator_id is None:
        raise ConfigError("separate_layers needs a separator between query and passage: the tokenizer has none")
    if passage_position < 0:
        raise ConfigError(f"passage_position is {passage_position}; it must not be negative")
    Separation(layers, passage_position, separator_id).passage_part(max_length)


def separation_of(config: dict[str, Any]) -> Separation | None:
    """What the content of a config.json tells; None for a teacher, and for a student without separate layers.

    Raises:
        ConfigError: it cannot work.
    """
    layers = config.get("separate_layers", 0) if config.get("model_type") == "mkdm" else 0
    if not layers:
        return None
    encoder = config.get("encoder_config") or {}
    place, separator = config.get("passage_position", 0), config.get("separator_id")
    k = int(encoder.get("num_hidden_layers") or encoder.get("n_layers") or 0)
    check_separation(layers, place, separator, k, config.get("max_length", 512), str(encoder.get("model_type")))
    return Separation(layers, place, int(separator or 0))


def read_separation(folder: str | Path) -> Separation | None:
    """What a model folder's config.json tells; see `separation_of`.

    Raises:
        ModelError: it cannot work, or the file cannot be read.
    """
    path = Path(folder) / "config.json"
    try:
        return separation_of(read_json(path))
    except (ConfigError, TypeError, ValueError) as error:
        raise ModelError(f"{path}: {error}: train or copy the student again") from error
