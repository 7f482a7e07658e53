"""How much memory a model takes while it scores, besides a batch. Needs no torch."""

import json
from math import prod
from pathlib import Path

from mkdm.model import model_folders, read_separation
from mkdm.scoring.token_cache import MAX_BYTES

LOOKUP_BYTES = 512 << 20
"""The most that the tables of the lean encoder may take in fp32; with larger vocabularies it has none."""

STATE_BYTES = 128 << 20
"""The most that the states of a block's texts may take at once on a CPU, for a student with separate layers."""


def memory_bytes(models: str | Path) -> int:
    """Bytes that a model, or an ensemble, may take while it scores in fp32, besides a batch.

    That is its weights, as their safetensors headers tell, the tables of the lean encoder, the ids of texts that are
    kept, and with separate layers the states of a block's texts and those of the next.
    """
    return sum(map(_model_bytes, model_folders(models)))


def _model_bytes(folder: Path) -> int:
    states = 2 * STATE_BYTES if read_separation(folder) else 0
    return MAX_BYTES + states + sum(map(_fp32_bytes, folder.glob("*.safetensors")))


def _fp32_bytes(weights: Path) -> int:
    with weights.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    sizes: dict[str, int] = {
        name: 4 * prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__"
    }
    words = sum(size for name, size in sizes.items() if name.endswith("word_embeddings.weight"))
    tables = 3 * words if 4 * words <= LOOKUP_BYTES else 0
    return sum(sizes.values()) + tables
