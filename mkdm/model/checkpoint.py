"""Saves students, and loads whatever can score a pair: a student of ours or a sequence-classification teacher.

Weights are safetensors, folders are read offline, no code that a checkpoint brings is run.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    PreTrainedModel,
)

from mkdm.errors import ModelError, first_line
from mkdm.model.families import FAMILIES, usable_positions
from mkdm.model.fitness import check_fitness
from mkdm.model.folder import model_version, saved_length, write_manifest
from mkdm.model.last_token import FirstAnswerModel, LastTokenModel, rows_of
from mkdm.model.lexical import Lexical
from mkdm.model.prompting import PLAIN, Prompting, is_generative, prompted_version, read_wording
from mkdm.model.separation import Separation
from mkdm.model.student import MkdmModel, check_report, logit_of
from mkdm.model.student_config import MkdmConfig
from mkdm.model.tokenizer import load_tokenizer
from mkdm.model.weights import read_shapes
from mkdm.quiet import quiet_transformers

_OFFLINE: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}


class PairModel(nn.Module):
    """Any model that scores pairs, behind one call.

    Args:
        model: an `MkdmModel`, or what gives logits of one label (sigmoid) or several (softmax).
        max_length: tokens of a pair at most.
        relevant: of several labels the index of the relevant one; see `relevant_label`.
    """

    def __init__(self, model: Any, max_length: int, relevant: int = 1) -> None:
        super().__init__()
        self.model = model
        self.relevant = relevant
        self.max_length = max_length

    @property
    def encoder(self) -> nn.Module:
        """The encoder under the headers."""
        encoder: nn.Module = self.model.base_model
        return encoder

    @property
    def reads_first(self) -> bool:
        """Whether no more than the first position of the encoder's states is read, as far as the config tells."""
        return getattr(self.model.config, "classifier_pooling", "cls") in ("cls", "bos")

    @property
    def separation(self) -> Separation | None:
        """How its first layers read query and passage apart; None where they do not."""
        return self.model.config.separation if isinstance(self.model, MkdmModel) else None

    def take_lexical(self) -> Lexical | None:
        """Take a student's lexical part off, for what adds it itself; None where there is none."""
        return self.model.take_lexical() if isinstance(self.model, MkdmModel) else None

    def replace_encoder(self, encoder: nn.Module) -> None:
        """Put another module in the encoder's place."""
        setattr(self.model, self.model.base_model_prefix, encoder)

    def forward(self, **inputs: Tensor) -> Tensor:
        """int64[B, L] `input_ids`, `attention_mask` and perhaps `token_type_ids` -> float32[B, 2].

        Column 0 is the score in [0, 1], column 1 its logit: log(score / (1 − score)), of the model's own logits where
        one header gives the score, so that it does not saturate.
        """
        return self.answers(self.model(**inputs))

    def answers(self, output: Any) -> Tensor:
        """What the model says, as `forward` tells it."""
        several_headers = isinstance(self.model, MkdmModel) and self.model.config.num_teachers > 0
        if several_headers:
            return torch.stack((output.score, logit_of(output.score)), dim=1)
        logits = (output.golden_logits if isinstance(self.model, MkdmModel) else output.logits).float()
        if logits.shape[1] == 1:
            return torch.stack((torch.sigmoid(logits[:, 0]), logits[:, 0]), dim=1)
        if logits.shape[1] == 2:
            margin = logits[:, self.relevant] - logits[:, 1 - self.relevant]
            if isinstance(self.model, MkdmModel) and output.lexical is not None:
                return torch.stack((output.score, margin + output.lexical), dim=1)
        else:
            others = [number for number in range(logits.shape[1]) if number != self.relevant]
            margin = logits[:, self.relevant] - torch.logsumexp(logits[:, others], dim=1)
        return torch.stack((torch.softmax(logits, dim=1)[:, self.relevant], margin), dim=1)


def save_checkpoint(
    model: PreTrainedModel, tokenizer: Any, folder: str | Path, dtype: torch.dtype | None = None
) -> str:
    """Write weights, config, tokenizer and manifest to `folder`.

    Args:
        dtype: type to store the weights as, such as torch.float16; `model` itself stays as it is.

    Returns:
        The model's version.
    """
    folder = Path(folder)
    weights = {name: tensor.to(dtype or tensor.dtype).contiguous() for name, tensor in model.state_dict().items()}
    with quiet_transformers():
        model.save_pretrained(folder, state_dict=weights)
        tokenizer.save_pretrained(folder)
    return write_manifest(folder)


def load_checkpoint(folder: str | Path, prompting: Prompting = PLAIN) -> tuple[PairModel, Any, str]:
    """Load a model in fp32 on the CPU, in evaluation mode, with its tokenizer and version.

    A teacher takes as many tokens as it was saved with; see `saved_length`.

    Args:
        prompting: how it is asked, which is part of its version; see `prompted_version`.

    Raises:
        ModelError: the folder is not whole (see `model_version`), is no model that scores pairs (see `check_fitness`),
            or does not load with all its weights.
    """
    version = model_version(folder)
    relevant = check_fitness(folder, prompting)
    version = prompted_version(version, folder, prompting)
    try:
        with quiet_transformers():
            config = AutoConfig.from_pretrained(folder, **_OFFLINE)
            model, report = _auto(folder, config).from_pretrained(
                folder, dtype=torch.float32, use_safetensors=True, output_loading_info=True, **_OFFLINE
            )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise ModelError(f"cannot load the model at {folder}: {first_line(error)}") from error
    tokenizer = load_tokenizer(folder)
    check_report(report, folder)
    limit = usable_positions(model.base_model)
    limit = min(limit, saved_length(folder) or limit)
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        raise ModelError(f"the tokenizer at {folder} has more tokens ({len(tokenizer)}) than the model has embeddings")
    return PairModel(_readable(model, folder, prompting), limit, relevant).eval(), tokenizer, version


def _auto(folder: str | Path, config: Any) -> Any:
    """What loads a model of that config."""
    if isinstance(config, MkdmConfig):
        return MkdmModel
    family = FAMILIES[config.model_type]
    if family.kind == "encoder" or not is_generative(family, read_shapes(Path(folder))):
        return AutoModelForSequenceClassification
    return AutoModelForCausalLM if family.kind == "decoder" else AutoModelForSeq2SeqLM


def _readable(model: Any, folder: str | Path, prompting: Prompting) -> Any:
    """The model such that it gives logits of labels for a padded batch."""
    kind = "encoder" if isinstance(model, MkdmModel) else FAMILIES[model.config.model_type].kind
    if kind == "encoder":
        return model
    wording = read_wording(folder, prompting)
    answers = () if wording is None else wording.answers
    if kind == "encoder-decoder":
        return FirstAnswerModel(model, answers)
    if answers:
        return LastTokenModel(model.model, rows_of(model.lm_head, answers), None)
    return LastTokenModel(model.model, model.score, model.config.pad_token_id)
