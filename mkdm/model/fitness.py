"""Whether a model folder can score pairs, as far as its files tell without loading it. Needs no torch.

A driver asks before a task starts; executors ask again, and then look at what loading tells.
"""

import json
import re
from pathlib import Path
from typing import Any

from mkdm.errors import ModelError
from mkdm.model.folder import read_json
from mkdm.model.labels import number_of_labels, relevant_label
from mkdm.model.separation import read_separation

_ROBERTA = ("classifier.dense.weight", "classifier.out_proj.weight")
_HEADS: dict[str, tuple[str, tuple[str, ...]]] = {
    "bert": ("bert", ("classifier.weight",)),
    "roberta": ("roberta", _ROBERTA),
    "xlm-roberta": ("roberta", _ROBERTA),
    "camembert": ("roberta", _ROBERTA),
    "electra": ("electra", _ROBERTA),
    "distilbert": ("distilbert", ("pre_classifier.weight", "classifier.weight")),
    "mpnet": ("mpnet", _ROBERTA),
    "ernie": ("ernie", ("classifier.weight",)),
    "xlm-roberta-xl": ("roberta", _ROBERTA),
    "megatron-bert": ("bert", ("classifier.weight",)),
    "roberta-prelayernorm": ("roberta_prelayernorm", _ROBERTA),
    "data2vec-text": ("data2vec_text", _ROBERTA),
    "convbert": ("convbert", _ROBERTA),
    "xmod": ("roberta", _ROBERTA),
    "rembert": ("rembert", ("classifier.weight",)),
    "mobilebert": ("mobilebert", ("classifier.weight",)),
    "albert": ("albert", ("classifier.weight",)),
}
"""By model_type, the prefix of the encoder's weights and the weights of the header, its last one last."""
_WITHOUT_TYPES = ("distilbert", "mpnet")
"""Families whose encoder takes no token types."""
_ACTIVATIONS = ("Sigmoid", "Identity")

Header = dict[str, tuple[int, ...]]


def check_fitness(folder: str | Path) -> int:
    """Check that what is in a folder is a model that scores pairs, and that its scores are what it was trained for.

    Args:
        folder: whole, as `model_version` checks.

    Returns:
        The index of the output that stands for relevant; see `relevant_label`.

    Raises:
        ModelError: a family that does not work here, no trained header, weights of other names or shapes, labels
            that do not tell, settings of a CrossEncoder that are not followed, token types or ids that the model
            has no embeddings for, or separate layers that cannot work.
    """
    folder = Path(folder)
    config = read_json(folder / "config.json")
    weights = read_header(folder)
    encoder = config.get("encoder_config", {}) if config.get("model_type") == "mkdm" else config
    _check_family(folder, config, encoder)
    relevant = 1 if encoder is not config else relevant_label(config, folder)
    _check_cross_encoder(folder)
    _check_weights(folder, config, encoder, weights)
    _check_tokenizer(folder, encoder)
    read_separation(folder)
    return relevant


def read_header(folder: Path) -> Header:
    """Names and shapes of a folder's weights, as its safetensors files tell.

    Raises:
        ModelError: a file is missing, cut off, or no safetensors.
    """
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if whole.exists():
        files = [whole]
    elif index.exists():
        files = sorted({folder / str(name) for name in read_json(index).get("weight_map", {}).values()})
    else:
        there = ", ".join(path.name for path in sorted(folder.glob("*.safetensors")))
        raise ModelError(f"{folder} lacks model.safetensors; it has {there}")
    shapes: Header = {}
    for path in files:
        try:
            with path.open("rb") as file:
                size = int.from_bytes(file.read(8), "little")
                if size > path.stat().st_size:
                    raise ValueError("it is cut off")
                header = json.loads(file.read(size))
            header.pop("__metadata__", None)
            if 8 + size + max((one["data_offsets"][1] for one in header.values()), default=0) > path.stat().st_size:
                raise ValueError("it is cut off")
            shapes |= {name: tuple(one["shape"]) for name, one in header.items()}
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise ModelError(f"cannot load the model at {folder}: {path.name}: {error}") from error
    return shapes


def _check_family(folder: Path, config: dict[str, Any], encoder: dict[str, Any]) -> None:
    family = encoder.get("model_type")
    if family not in _HEADS:
        raise ModelError(f"{folder} is of the family {family}, which is not supported: take one of {', '.join(_HEADS)}")
    if "AutoModelForSequenceClassification" in (config.get("auto_map") or {}):
        raise ModelError(f"{folder} brings code of its own, which is never run: take a model that needs none")
    if config.get("quantization_config"):
        raise ModelError(f"{folder} has quantised weights: take the model in fp32, fp16 or bf16; see --precision")


def _check_weights(folder: Path, config: dict[str, Any], encoder: dict[str, Any], weights: Header) -> None:
    family = encoder["model_type"]
    prefix, header = _HEADS[family]
    rows = number_of_labels(config)
    if encoder is not config:
        prefix, rows = "encoder", 2
        header = (*(["soft_headers.weight"] if config.get("teacher_ids") else []), "golden_header.weight")
    lacking = [name for name in header if name not in weights]
    if lacking:
        hint = "it has no trained header" if encoder is config else "it is not whole"
        raise ModelError(
            f"the weights at {folder} lack {lacking[0]}: {hint}; give a cross-encoder, a model of sequence "
            f"classification that was trained to score pairs"
        )
    if weights[header[-1]][0] != rows:
        raise ModelError(
            f"{header[-1]} at {folder} has {weights[header[-1]][0]} rows, its config.json tells of {rows} labels"
        )
    start = "" if f"{prefix}.embeddings.word_embeddings.weight" not in weights and (
        "embeddings.word_embeddings.weight" in weights
    ) else f"{prefix}."  # fmt: skip
    words = f"{start}embeddings.word_embeddings.weight"
    if words not in weights:
        raise ModelError(
            f"the weights at {folder} lack {words}: their names, such as {min(weights)}, are not a {family}'s"
        )
    if weights[words][0] != encoder.get("vocab_size", weights[words][0]):
        raise ModelError(f"{words} at {folder} has {weights[words][0]} rows, vocab_size is {encoder['vocab_size']}")
    found = {
        int(match[1]) for name in weights if name.startswith(start) and (match := re.search(r"\.layer\.(\d+)\.", name))
    }
    layers = int(encoder.get("num_hidden_layers") or encoder.get("n_layers") or 0)
    lost = [] if family == "albert" else sorted(set(range(layers)) - found)
    if lost:
        raise ModelError(f"the weights at {folder} lack layer {lost[0]} of {layers}: copy or save the model again")


def _check_tokenizer(folder: Path, encoder: dict[str, Any]) -> None:
    content, told = read_json(folder / "tokenizer.json"), read_json(folder / "tokenizer_config.json", {})
    model, added = content.get("model") or {}, content.get("added_tokens") or []
    vocabulary = model.get("vocab") or {}
    highest = max(vocabulary.values(), default=-1) if isinstance(vocabulary, dict) else len(vocabulary) - 1
    tokens = 1 + max([highest, *(int(one["id"]) for one in added)])
    if tokens > encoder.get("vocab_size", tokens):
        raise ModelError(
            f"the tokenizer at {folder} has more tokens ({tokens}) than the model has embeddings "
            f"({encoder['vocab_size']}): save the tokenizer that the model was trained with"
        )
    family = encoder["model_type"]
    names = told.get("model_input_names")
    own = re.match(r"(XLM)?Roberta|Camembert|DistilBert|MPNet", str(told.get("tokenizer_class", "")))
    if "token_type_ids" not in names if names is not None else own:
        return
    highest_type = _highest_type(content.get("post_processor") or {})
    types = int(encoder.get("type_vocab_size", 2))
    if family in _WITHOUT_TYPES or highest_type >= max(types, 1):
        has = "takes no token types" if family in _WITHOUT_TYPES else f"has type_vocab_size {types}"
        raise ModelError(
            f"the tokenizer at {folder} gives token types up to {highest_type}, the model {has}: save the tokenizer "
            f'that it was trained with, or write "model_input_names": ["input_ids", "attention_mask"] into '
            f"tokenizer_config.json"
        )


def _highest_type(processor: dict[str, Any]) -> int:
    """The highest token type that a post-processor of tokenizer.json gives in a pair."""
    kind = processor.get("type")
    if kind == "Sequence":
        return max((_highest_type(one) for one in processor.get("processors", [])), default=0)
    if kind == "TemplateProcessing":
        return max((next(iter(part.values()))["type_id"] for part in processor.get("pair", [])), default=0)
    return 1 if kind == "BertProcessing" else 0


def _check_cross_encoder(folder: Path) -> None:
    """Check the settings that sentence-transformers saves with a CrossEncoder, in old and new layouts."""
    config, saved = read_json(folder / "config.json"), read_json(folder / "config_sentence_transformers.json", {})
    modules = read_json(folder / "modules.json", [])
    kinds = [str(one.get("type", "")).rpartition(".")[2] for one in modules]
    if kinds not in ([], ["Transformer"]):
        raise ModelError(
            f"{folder} is a chain of {', '.join(kinds)} of sentence-transformers, not a single model of sequence "
            f"classification: give a CrossEncoder of one Transformer"
        )
    section = config.get("sentence_transformers") or {}
    activation = (
        section.get("activation_fn") or config.get("sbert_ce_default_activation_function") or saved.get("activation_fn")
    )
    if activation and str(activation).rpartition(".")[2] not in _ACTIVATIONS:
        raise ModelError(
            f"{folder} has the activation {activation}; scores here are the sigmoid of a logit: take a model with "
            f"Sigmoid or Identity, or remove activation_fn where that is meant"
        )
    name = saved.get("default_prompt_name")
    prompt = (saved.get("prompts") or {}).get(name) if name is not None else None
    if prompt:
        raise ModelError(
            f"{folder} puts the prompt {prompt!r} ({name}) before its texts, which is not done here: write it into the "
            f"texts and remove default_prompt_name from config_sentence_transformers.json"
        )
