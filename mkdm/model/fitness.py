"""Whether a model folder can score pairs, as far as its files tell without loading it. Needs no torch.

A driver asks before a task starts; executors ask again, and then look at what loading tells.
"""

import re
from pathlib import Path
from typing import Any

from mkdm.errors import ModelError
from mkdm.model.families import FAMILIES, Family, family_of
from mkdm.model.folder import ensemble_version, model_folders, model_version, read_json
from mkdm.model.labels import number_of_labels, relevant_label
from mkdm.model.lexical import read_lexical
from mkdm.model.prompting import PLAIN, Prompting, is_generative, prompted_version, read_wording
from mkdm.model.separation import read_separation
from mkdm.model.weights import Shapes, read_shapes

_ACTIVATIONS = ("Sigmoid", "Identity")


def check_fitness(folder: str | Path, prompting: Prompting = PLAIN) -> int:
    """Check that what is in a folder is a model that scores pairs, and that its scores are what it was trained for.

    Args:
        folder: whole, as `model_version` checks.
        prompting: how it is asked.

    Returns:
        The index of the output that stands for relevant; see `relevant_label`.

    Raises:
        ModelError: a family that does not work here, no trained header, weights of other names or shapes, labels
            that do not tell, settings of a CrossEncoder that are not followed, token types or ids that the model has
            no embeddings for, separate layers that cannot work, or a prompt, template or answer that does not fit; see
            `read_wording`.
    """
    folder = Path(folder)
    config = read_json(folder / "config.json")
    weights = read_shapes(folder)
    encoder = config.get("encoder_config", {}) if config.get("model_type") == "mkdm" else config
    family = _check_family(folder, config, encoder)
    generative = is_generative(family, weights)
    if encoder is not config:
        if prompting != PLAIN:
            raise ModelError(f"{folder} is a student of ours, which takes no prompt, template or label: leave them out")
        relevant = 1
    else:
        relevant = 1 if generative else relevant_label(config, folder, prompting.label)
    _check_cross_encoder(folder, prompting, generative)
    _check_weights(folder, config, encoder, weights, generative)
    _check_tokenizer(folder, encoder)
    read_separation(folder)
    read_lexical(folder)
    wording = read_wording(folder, prompting)
    return len(wording.answers) - 1 if generative and wording is not None else relevant


def checked_version(models: str | Path, prompting: Prompting = PLAIN) -> str:
    """The content hash of a model, or of an ensemble, and of how it is asked, after checking that it can be run so.

    Raises:
        ModelError: as for `model_folders`, `model_version` and `check_fitness`.
    """
    versions = []
    for folder in model_folders(models):
        version = model_version(folder)
        check_fitness(folder, prompting)
        versions.append(prompted_version(version, folder, prompting))
    return ensemble_version(versions)


def _check_family(folder: Path, config: dict[str, Any], encoder: dict[str, Any]) -> Family:
    family = family_of(encoder, folder)
    if "AutoModelForSequenceClassification" in (config.get("auto_map") or {}) and not family.ported:
        raise ModelError(f"{folder} brings code of its own, which is never run: take a model that needs none")
    if config.get("quantization_config"):
        raise ModelError(f"{folder} has quantised weights: take the model in fp32, fp16 or bf16; see --precision")
    if encoder is not config and family.kind != "encoder":
        raise ModelError(f"{folder} is a student of a {family.kind}, which reads no first token: train it anew")
    return family


def _check_weights(
    folder: Path, config: dict[str, Any], encoder: dict[str, Any], weights: Shapes, generative: bool
) -> None:
    name = encoder["model_type"]
    family = FAMILIES[name]
    prefix, header, rows = family.prefix, family.header, number_of_labels(config)
    if encoder is not config:
        prefix, rows = "encoder", 2
        header = (*(["soft_headers.weight"] if config.get("teacher_ids") else []), "golden_header.weight")
    if generative:
        header = ()
        if any(one.startswith(("classification_head.", "classifier.")) for one in weights):
            raise ModelError(f"{folder} is a {name} with a header of classes: take one that answers in words")
    lacking = [one for one in header if one not in weights]
    if lacking:
        hint = "it has no trained header" if encoder is config else "it is not whole"
        raise ModelError(
            f"the weights at {folder} lack {lacking[0]}: {hint}; give a cross-encoder, a model of sequence "
            f"classification that was trained to score pairs"
        )
    if header and weights[header[-1]][0] != rows:
        raise ModelError(
            f"{header[-1]} at {folder} has {weights[header[-1]][0]} rows, its config.json tells of {rows} labels"
        )
    starts = [f"{one}." if one else "" for one in (prefix, "", *family.former_prefixes)]
    start = next((one for one in starts if f"{one}{family.words}" in weights), starts[0])
    words = f"{start}{family.words}"
    if words not in weights:
        raise ModelError(
            f"the weights at {folder} lack {words}: their names, such as {min(weights)}, are not a {name}'s"
        )
    if weights[words][0] != encoder.get("vocab_size", weights[words][0]):
        raise ModelError(f"{words} at {folder} has {weights[words][0]} rows, vocab_size is {encoder['vocab_size']}")
    numbered = re.compile(rf"\.{family.layer}\.(\d+)\.")
    found = {int(match[1]) for one in weights if one.startswith(start) and (match := numbered.search(f".{one}"))}
    layers = next((int(encoder[key]) for key in ("num_hidden_layers", "n_layers", "num_layers") if key in encoder), 0)
    lost = sorted(set(range(layers)) - found) if family.layer else []
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
    family = FAMILIES[encoder["model_type"]]
    if family.kind != "encoder":  # which are given none, whatever the tokenizer gives
        return
    names = told.get("model_input_names")
    own = re.match(r"(XLM)?Roberta|Camembert|DistilBert|MPNet", str(told.get("tokenizer_class", "")))
    if "token_type_ids" not in names if names is not None else own:
        return
    highest_type = _highest_type(content.get("post_processor") or {})
    types = int(encoder.get("type_vocab_size", 2))
    if family.types == "ignored" and types == 0:
        return
    if family.types == "refused" or highest_type >= max(types, 1):
        has = "takes no token types" if family.types == "refused" else f"has type_vocab_size {types}"
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


def _check_cross_encoder(folder: Path, prompting: Prompting, generative: bool) -> None:
    """Check the settings that sentence-transformers saves with a CrossEncoder, in old and new layouts."""
    config, saved = read_json(folder / "config.json"), read_json(folder / "config_sentence_transformers.json", {})
    modules = read_json(folder / "modules.json", [])
    kinds = [str(one.get("type", "")).rpartition(".")[2] for one in modules]
    if kinds not in ([], ["Transformer"]) and not (generative and kinds == ["Transformer", "LogitScore"]):
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
    if prompt and prompting.prompt is None and not generative:
        raise ModelError(
            f"{folder} puts the prompt {prompt!r} ({name}) before its texts, which is not done here: give it as "
            f"--prompt of mkdm score or the prompt of its entry in a zoo, or remove default_prompt_name from "
            f"config_sentence_transformers.json"
        )
