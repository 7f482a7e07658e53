"""The shape of a student: what its config.json tells."""

from dataclasses import fields
from typing import Any, ClassVar

import numpy as np
from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from mkdm.errors import ConfigError
from mkdm.model.lexical import Lexical, check_lexical
from mkdm.model.separation import Separation, check_separation


class MkdmConfig(PreTrainedConfig):
    """Shape of a student.

    Args:
        encoder_config: the Hugging Face config of the encoder, already cut to k layers.
        teacher_ids: one id per soft header, in the order of the headers; empty for a student of golden labels.
        alpha: the weight α of the soft losses in (5), in [0, 1]; with 1 the output (6) leaves the golden header out.
        max_length: tokens of a pair, special tokens included, that the student was trained with.
        separate_layers: s, the first layers that read query and passage apart; see `mkdm.model.separation`.
        passage_position: with separate layers, where the positions of a passage start.
        separator_id: with separate layers or a lexical weight, the token that ends the query part.
        lexical_weight: w, by which BM25 moves the output's logit; 0 is a student of the encoder alone. See
            `mkdm.model.lexical`, as for the next two.
        lexical_centre: c.
        lexical_length: tokens of a passage in the mean.

    Raises:
        ConfigError: alpha outside [0, 1]; alpha = 1 without a teacher, which leaves no header to answer; or separate
            layers or a lexical weight that cannot work, see `check_separation` and `check_lexical`.
    """

    model_type = "mkdm"
    sub_configs_defaults: ClassVar[dict[str, Any]] = {
        "encoder_config": SubConfigSpec(AutoConfig, model_type="bert", init_kwargs={"num_hidden_layers": 3})
    }

    encoder_config: Any = None
    teacher_ids: list[str] | tuple[str, ...] = ()
    alpha: float = 0.9
    max_length: int = 512
    separate_layers: int = 0
    passage_position: int = 0
    separator_id: int | None = None
    lexical_weight: float = 0.0
    lexical_centre: float = 0.0
    lexical_length: float = 1.0

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        self.teacher_ids = list(self.teacher_ids)
        if not 0.0 <= self.alpha <= 1.0:
            raise ConfigError(f"alpha is {self.alpha}; it must lie in [0, 1]")
        if self.alpha == 1.0 and not self.teacher_ids:
            raise ConfigError("alpha is 1 but there is no teacher, so no header is left to answer: lower alpha")
        place, separator, family = self.passage_position, self.separator_id, self.encoder_config.model_type
        check_separation(self.separate_layers, place, separator, self.num_layers, self.max_length, family)
        check_lexical(self.lexical_weight, self.lexical_centre, self.lexical_length, separator)

    @property
    def num_layers(self) -> int:
        """k, the number of encoder layers."""
        return int(self.encoder_config.num_hidden_layers)

    @property
    def num_teachers(self) -> int:
        """n, the number of soft headers."""
        return len(self.teacher_ids)

    @property
    def separation(self) -> Separation | None:
        """How query and passage are read apart; None where no layer does."""
        if not self.separate_layers or self.separator_id is None:
            return None
        return Separation(self.separate_layers, self.passage_position, self.separator_id)

    @property
    def lexical(self) -> Lexical | None:
        """The lexical part but for its table, which is among the weights; None where there is none."""
        if not self.lexical_weight or self.separator_id is None:
            return None
        nothing = np.zeros(0, dtype=np.float32)
        return Lexical(self.lexical_weight, self.lexical_centre, self.lexical_length, self.separator_id, nothing)

    def own(self) -> dict[str, Any]:
        """By name, what it tells beside what every config does."""
        names = {field.name for field in fields(MkdmConfig)} - {field.name for field in fields(PreTrainedConfig)}
        return {name: getattr(self, name) for name in sorted(names)}

    def like(self, encoder_config: Any) -> "MkdmConfig":
        """This config with another encoder."""
        return MkdmConfig(**self.own() | {"encoder_config": encoder_config})


AutoConfig.register("mkdm", MkdmConfig)
