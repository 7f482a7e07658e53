"""What the weights of a model folder are called, and their shapes, without loading them. Needs no torch."""

import json
from pathlib import Path

from mkdm.errors import ModelError
from mkdm.model.folder import read_json

Shapes = dict[str, tuple[int, ...]]


def read_shapes(folder: Path) -> Shapes:
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
    shapes: Shapes = {}
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
