"""A model folder as files: what belongs to it, its content version, and whether it is whole. Needs no torch.

The driver checks a folder here before any task starts; executors check again that theirs is the same.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mkdm.errors import ConfigError, ModelError
from mkdm.model.families import positions_of
from mkdm.model.fetch import folder_of
from mkdm.model.hub_cache import how_to_get
from mkdm.model.pinning import is_kept, pin

MODEL_MANIFEST = "mkdm_manifest.json"
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
)
_UNLIMITED = 10**9
"""From here on, a tokenizer's model_max_length means none."""
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl")


def model_version(folder: str | Path) -> str:
    """The content hash of a model folder over weights, config and tokenizer, after checking that it is whole.

    Args:
        folder: a Hugging Face folder of safetensors weights, config.json and a fast tokenizer.

    Returns:
        16 hexadecimal digits, the same for the same content on any machine.

    Raises:
        ModelError: the folder or one of its files is missing, its weights are pickles, or a file no longer has the
            content that the manifest, written when the model was saved, records.
    """
    folder = Path(folder)
    hashes = {path.name: file_hash(path) for path in content_files(folder)}
    manifest = folder / MODEL_MANIFEST
    if manifest.exists():
        _check_against(manifest, hashes)
    return _version(hashes)


def model_folders(models: str | Path) -> list[Path]:
    """The folders of one model, or of the students of an ensemble, which are joined by commas; of a URI, a local copy.

    Raises:
        ModelError: a folder is named twice, a name is empty, or a URI cannot be read or its model is not whole.
    """
    return [folder_of(name, model_version) for name in _names(models)]


def pinned_models(models: str | Path, check: Callable[[Path], object] = model_version) -> tuple[str, dict[str, str]]:
    """The models at versions that do not move, where a registry or the hub keeps them, and where those came from.

    Args:
        check: looks at a copy before it is used.

    Returns:
        The models with such names pinned, and by name what `runs` tells of each; of several, joined by commas.

    Raises:
        ModelError: as for `model_folders`.
    """
    found = [pin(name, check) if is_kept(name) else (name, {}) for name in _names(models)]
    if not any(origin for _, origin in found):
        return str(models), {}
    names = sorted({name for _, origin in found for name in origin})
    origins = {name: ", ".join(origin.get(name, "none") for _, origin in found) for name in names}
    return ",".join(name for name, _ in found), origins


def _names(models: str | Path) -> list[str]:
    names = [name.strip() for name in str(models).split(",")]
    if "" in names:
        raise ModelError(f"{models!r} names an empty folder: give one folder, or several joined by commas")
    if len(set(names)) < len(names):
        raise ModelError(f"{models} names a folder twice: an ensemble averages different students")
    return names


def models_version(models: str | Path) -> str:
    """The content hash of a model, or of an ensemble: of its students' hashes in whatever order.

    Raises:
        ModelError: as for `model_version` and `model_folders`.
    """
    return ensemble_version([model_version(folder) for folder in model_folders(models)])


def ensemble_version(versions: list[str]) -> str:
    """16 hexadecimal digits; of one version, that version."""
    if len(versions) == 1:
        return versions[0]
    return hashlib.sha256(" ".join(sorted(versions)).encode()).hexdigest()[:16]


def check_max_length(models: str | Path, max_length: int | None) -> None:
    """Check a wanted number of tokens against the models' configs, as far as they tell what a model takes.

    Raises:
        ConfigError: it is more than that.
    """
    for folder in model_folders(models):
        _check_max_length(folder, max_length)


def _check_max_length(folder: Path, max_length: int | None) -> None:
    config = read_json(folder / "config.json")
    takes = config.get("max_length") if config.get("model_type") == "mkdm" else positions_of(config)
    takes = min((one for one in (takes, saved_length(folder)) if one is not None), default=None)
    if max_length is not None and takes is not None and max_length > takes:
        raise ConfigError(f"--max-length is {max_length}; this model takes 1 to {takes} tokens")
    place = config.get("passage_position", 0) if config.get("separate_layers") else 0
    if max_length is not None and place and max_length < place + 2:
        raise ConfigError(
            f"--max-length is {max_length}; passages of this student start at position {place}: give at least "
            f"{place + 2} tokens"
        )


def saved_length(folder: str | Path) -> int | None:
    """Tokens of a pair that a model was saved with, or None where its files tell none.

    That is a student's `max_length`. A teacher takes what a CrossEncoder of its folder does: `max_seq_length` of
    sentence-transformers, else `model_max_length` of the tokenizer.
    """
    folder = Path(folder)
    config = read_json(folder / "config.json")
    if config.get("model_type") == "mkdm":
        own = config.get("max_length")
        return None if own is None else int(own)
    sizes = (
        read_json(folder / "sentence_bert_config.json", {}).get("max_seq_length"),
        read_json(folder / "tokenizer_config.json", {}).get("model_max_length"),
    )
    length = next((one for one in sizes if one is not None), None)
    return int(length) if length is not None and 0 < length < _UNLIMITED else None


def read_json(path: Path, default: Any = None) -> Any:
    """What a JSON file holds: a mapping, or a list where the default is one.

    Args:
        default: for a file that is not there; without one that is an error.

    Raises:
        ModelError: it cannot be read, or holds something else.
    """
    if default is not None and not path.exists():
        return default
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read ({error}): copy the model again") from error
    if not isinstance(content, dict if default is None else type(default)):
        raise ModelError(f"{path} does not hold what it should: copy the model again")
    return content


def write_manifest(folder: str | Path) -> str:
    """Record the content of a saved model folder, so that a lost or changed file is noticed; return its version."""
    folder = Path(folder)
    hashes = {path.name: file_hash(path) for path in content_files(folder)}
    manifest = {"model_version": _version(hashes), "sha256": hashes}
    (folder / MODEL_MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    return _version(hashes)


def content_files(folder: Path) -> list[Path]:
    """The files that decide what a model answers, sorted by name.

    Raises:
        ModelError: as for `model_version`.
    """
    if not folder.is_dir():
        if (told := how_to_get(str(folder))) is not None:
            raise ModelError(told)
        raise ModelError(f"no model folder at {folder}: pass --model a folder with config.json and model.safetensors")
    if (folder / "adapter_config.json").exists():
        raise ModelError(
            f"{folder} holds an adapter (LoRA), not a whole model: load it with peft onto its base model, then save "
            f"what merge_and_unload() returns, and the tokenizer, to a new folder"
        )
    weights = sorted(folder.glob("*.safetensors")) + sorted(folder.glob("*.safetensors.index.json"))
    if not weights and any(path for pattern in _PICKLES for path in folder.glob(pattern)):
        raise ModelError(
            f"{folder} holds pickled weights, which are never loaded: if you trust them, save them as safetensors with "
            f'python -c "from transformers import AutoModelForSequenceClassification as M; '
            f"M.from_pretrained('{folder}').save_pretrained('{folder}')\""
        )
    tokenizer = [folder / name for name in _TOKENIZER_FILES if (folder / name).exists()]
    missing = [] if weights else ["model.safetensors"]
    missing += [name for name in ("config.json", "tokenizer.json") if not (folder / name).exists()]
    if missing:
        there = ", ".join(sorted(path.name for path in folder.iterdir())) or "nothing"
        raise ModelError(f"{folder} lacks {', '.join(missing)}; it has {there}")
    return sorted([*weights, *tokenizer, folder / "config.json"])


def _check_against(manifest: Path, hashes: dict[str, str]) -> None:
    try:
        recorded = json.loads(manifest.read_text())["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{manifest} cannot be read ({error!r}): copy the model again from where it was saved"
        ) from error
    for name in sorted({*recorded, *hashes}):
        if name not in hashes:
            raise ModelError(f"{manifest.parent} lacks {name}, which was saved with it: copy the whole folder again")
        if name not in recorded:
            raise ModelError(
                f"{manifest.parent} has {name}, which was not saved with it: remove it or save the model again"
            )
        if recorded[name] != hashes[name]:
            raise ModelError(
                f"{name} in {manifest.parent} has changed since it was saved "
                f"(sha256 {hashes[name][:12]}…, saved as {recorded[name][:12]}…): copy it again or save the model again"
            )


def _version(hashes: dict[str, str]) -> str:
    lines = "".join(f"{name} {digest}\n" for name, digest in sorted(hashes.items()))
    return hashlib.sha256(lines.encode()).hexdigest()[:16]


def file_hash(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tokenizer_version(tokenizer: Any) -> str:
    """16 hex digits that two tokenizers share when they turn every text into the same token ids.

    It covers vocabulary, added tokens, normaliser, pre-tokeniser, model and post-processor, not how the tokenizer pads,
    truncates or decodes, nor what its files are called.

    Args:
        tokenizer: a fast tokenizer.
    """
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    for name in ("version", "truncation", "padding", "decoder"):
        content.pop(name, None)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
