"""The MKDM student: the first k layers of a BERT-like encoder, one golden header, one soft header per teacher.

Yang et al., "Model Compression with Multi-Task Knowledge Distillation for Web-scale Question Answering System",
arXiv 1904.09636; equations are cited by their number there.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedModel
from transformers.utils.generic import ModelOutput

from mkdm.errors import ModelError, first_line
from mkdm.model.families import family_of, usable_positions
from mkdm.model.lexical import Lexical
from mkdm.model.lexical_module import LexicalModule
from mkdm.model.read_apart import read_apart
from mkdm.model.separation import Separation
from mkdm.model.student_config import MkdmConfig
from mkdm.quiet import quiet_transformers


@dataclass
class MkdmOutput(ModelOutput):
    """What the student says of B pairs.

    Attributes:
        score: float[B], the output O of (6), in [0, 1]; where there is a lexical part, moved by it.
        golden_logits: float[B, 2], W_g h1; softmax gives P of (1).
        soft_logits: float[B, n], W_s,i h1; sigmoid gives R_i of (3).
        lexical: float32[B], how far the lexical part moves the logit of O; None where there is none.
    """

    score: Tensor | None = None
    golden_logits: Tensor | None = None
    soft_logits: Tensor | None = None
    lexical: Tensor | None = None


def output_score(golden_logits: Tensor, soft_logits: Tensor, alpha: float) -> Tensor:
    """Output (6): O = (P(1) + Σ R_i) / (1 + n); with α = 1 the mean of the soft headers alone.

    Args:
        golden_logits: float[B, 2]
        soft_logits: float[B, n]

    Returns:
        float32[B] in [0, 1]
    """
    soft = torch.sigmoid(soft_logits.float())  # (3)
    if alpha == 1.0:
        return soft.mean(dim=1)
    golden = torch.softmax(golden_logits.float(), dim=1)[:, 1]  # (1)
    return (golden + soft.sum(dim=1)) / (1 + soft.shape[1])


def logit_of(score: Any) -> Tensor:
    """log(score / (1 − score)), where 0 and 1 give ∓ 16."""
    inside: Tensor = score.clamp(1e-7, 1 - 1e-7)
    return torch.log(inside / (1 - inside))


class MkdmModel(PreTrainedModel):
    """The student. Any encoder that `AutoModel` builds and whose first token stands for the pair will do."""

    config_class = MkdmConfig
    base_model_prefix = "encoder"
    _supports_sdpa = True
    _supports_attention_backend = True

    def __init__(self, config: MkdmConfig) -> None:
        super().__init__(config)
        self.encoder = _without_pooler(AutoModel.from_config(config.encoder_config))
        hidden_size = config.encoder_config.hidden_size
        dropout = getattr(config.encoder_config, "hidden_dropout_prob", None)
        self.dropout = nn.Dropout(getattr(config.encoder_config, "dropout", 0.1) if dropout is None else dropout)
        self.golden_header = nn.Linear(hidden_size, 2)
        self.soft_headers = nn.Linear(hidden_size, config.num_teachers) if config.num_teachers else None
        lexical = config.lexical
        self.lexical = None if lexical is None else LexicalModule(lexical, config.encoder_config.vocab_size)
        self.post_init()

    @classmethod
    def from_encoder(
        cls,
        folder: str | Path,
        num_layers: int | None = 3,
        teacher_ids: tuple[str, ...] = (),
        alpha: float = 0.9,
        max_length: int | None = None,
        separation: Separation | None = None,
    ) -> "MkdmModel":
        """A fresh student that starts from the first `num_layers` layers of a pretrained encoder.

        Args:
            folder: Hugging Face folder with config.json and safetensors, or a student of ours, from which the golden
                header and the soft headers of the same teachers are taken over; read offline.
            num_layers: k; None keeps all.
            max_length: tokens of a pair; by default all that the encoder has positions for.
            separation: how its first layers read query and passage apart; None where they do not, whatever a student
                that it starts from does.

        Raises:
            ConfigError: the separation cannot work with this encoder.
            ModelError: the folder does not load, is of a family that does not work here or is no encoder, lacks weights
                of the encoder, or has fewer layers than asked for.
        """
        try:
            encoder_config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except (OSError, ValueError) as error:
            raise ModelError(f"no encoder at {folder}: {first_line(error)}") from error
        if isinstance(encoder_config, MkdmConfig):
            return cls._from_student(folder, encoder_config, num_layers, teacher_ids, alpha, max_length, separation)
        _cut(encoder_config, _layers(folder, encoder_config, num_layers))
        encoder = _load(AutoModel, folder, encoder_config)
        config = MkdmConfig(
            encoder_config=encoder_config,
            teacher_ids=list(teacher_ids),
            alpha=alpha,
            max_length=max_length or usable_positions(encoder),
            **_fields(separation),
        )
        config.encoder_config.name_or_path = ""  # a path of the machine it was made on is no business of a reader
        student = cls(config)
        student.encoder = _without_pooler(encoder)
        return student

    @classmethod
    def _from_student(
        cls,
        folder: str | Path,
        config: MkdmConfig,
        num_layers: int | None,
        teacher_ids: tuple[str, ...],
        alpha: float,
        max_length: int | None,
        separation: Separation | None,
    ) -> "MkdmModel":
        start: MkdmModel = _load(cls, folder, config)
        shape = AutoConfig.for_model(**config.encoder_config.to_dict())
        _cut(shape, _layers(folder, config.encoder_config, num_layers))
        positions = usable_positions(start.encoder)
        student = cls(
            MkdmConfig(
                encoder_config=shape,
                teacher_ids=list(teacher_ids),
                alpha=alpha,
                max_length=max_length or positions,
                **_fields(separation),
            )
        )
        student.encoder.load_state_dict(start.encoder.state_dict(), strict=False)  # strict but for the layers above k
        student.golden_header.load_state_dict(start.golden_header.state_dict())
        with torch.no_grad():
            for number, teacher in enumerate(teacher_ids):
                if teacher in config.teacher_ids:
                    row = config.teacher_ids.index(teacher)
                    student.soft_headers.weight[number] = start.soft_headers.weight[row]  # type: ignore[union-attr]
                    student.soft_headers.bias[number] = start.soft_headers.bias[row]  # type: ignore[union-attr]
        return student

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None
    ) -> MkdmOutput:
        """Score B encoded pairs of padded length L.

        Args:
            input_ids: int64[B, L], [CLS] query [SEP] passage [SEP] and padding.
            attention_mask: int64[B, L], 1 at tokens and 0 at padding.
            token_type_ids: int64[B, L], for the encoders that know them.
        """
        inputs: dict[str, Any] = {"input_ids": input_ids, "attention_mask": attention_mask}
        if token_type_ids is not None:
            inputs["token_type_ids"] = token_type_ids
        separation = self.config.separation
        if separation is None:
            hidden = self.encoder(**inputs).last_hidden_state
        else:
            hidden = read_apart(self.encoder, separation, **inputs)
        output = self.answer(hidden[:, 0])
        if self.lexical is not None:
            output.lexical = self.lexical(input_ids, attention_mask)
            output.score = torch.sigmoid(logit_of(output.score) + output.lexical)
        return output

    def take_lexical(self) -> Lexical | None:
        """Take the lexical part off, for what adds it itself; None where there is none."""
        module, self.lexical, self.config.lexical_weight = self.lexical, None, 0.0
        return None if module is None else module.plain()

    def answer(self, cls: Tensor) -> MkdmOutput:
        """What the headers say of float[B, H], the hidden states of [CLS], without the lexical part."""
        h1 = self.dropout(cls)
        golden_logits = self.golden_header(h1)
        soft_logits = h1.new_zeros(h1.shape[0], 0) if self.soft_headers is None else self.soft_headers(h1)
        score = output_score(golden_logits, soft_logits, self.config.alpha)
        return MkdmOutput(score=score, golden_logits=golden_logits, soft_logits=soft_logits)


def _fields(separation: Separation | None) -> dict[str, Any]:
    """Of a config."""
    if separation is None:
        return {}
    return {
        "separate_layers": separation.layers,
        "passage_position": separation.passage_position,
        "separator_id": separation.separator_id,
    }


def _layers(folder: str | Path, config: Any, wanted: int | None) -> int:
    if (kind := family_of(config.to_dict(), folder).kind) != "encoder":
        raise ModelError(
            f"{folder} is a {kind}, whose first token sees nothing of the pair: a student starts from an encoder"
        )
    has = int(config.num_hidden_layers)
    if wanted is not None and not 1 <= wanted <= has:
        raise ModelError(f"{folder} has {has} layers; cannot take {wanted}")
    return wanted or has


def _cut(config: Any, layers: int) -> None:
    """Make a config one of its first layers; which of them attend locally stays as it was."""
    kinds = getattr(config, "layer_types", None)
    config.num_hidden_layers = layers
    if kinds is not None:
        config.layer_types = list(kinds[:layers])


def _load(auto: Any, folder: str | Path, config: Any) -> Any:
    try:
        with quiet_transformers():  # the layers above k are left out on purpose, and would be listed one by one
            model, report = auto.from_pretrained(
                folder,
                config=config,
                dtype=torch.float32,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise ModelError(f"cannot load the encoder at {folder}: {first_line(error)}") from error
    check_report(report, folder, unused=("pooler.",))
    return model


def check_report(report: dict[str, Any], folder: str | Path, unused: tuple[str, ...] = ()) -> None:
    """Check that transformers found every weight of a model in its files, of the right shape.

    Args:
        report: what from_pretrained tells with `output_loading_info`.
        unused: starts of the names of weights that no score depends on.

    Raises:
        ModelError: it did not, so that it made random ones up.
    """
    missing = sorted(name for name in report["missing_keys"] if not name.startswith(unused))
    if missing:
        there = ", such as " + min(report["unexpected_keys"]) if report["unexpected_keys"] else ""
        raise ModelError(
            f"the weights at {folder} lack {missing[0]} ({len(missing)} tensors), which would be random"
            f"{f', and have others{there}' if there else ''}: save the model again under the names of its family"
        )
    if report["mismatched_keys"]:
        raise ModelError(
            f"{min(map(str, report['mismatched_keys']))} at {folder} has another shape than its config.json tells"
        )


def _without_pooler(encoder: Any) -> Any:
    if getattr(encoder, "pooler", None) is not None:
        encoder.pooler = None  # the headers read h1 itself
    return encoder


AutoModel.register(MkdmConfig, MkdmModel)
