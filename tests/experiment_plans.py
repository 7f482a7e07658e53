"""A small plan of runs, and what its command needs."""

from pathlib import Path
from typing import Any

import torch
import yaml
from tiny_models import tiny_config
from training_sets import learnable, write_training_set
from transformers import AutoModel, PreTrainedTokenizerFast

from mkdm.model.folder import tokenizer_version

RUN = {"encoder": "tiny", "training_set": "labelled"}
TABLES = ["table4", "table5", "table6", "table7", "table8", "past"]
PLAN: dict[str, Any] = {
    "settings": {"feed": "arrow", "batch_size": 32, "dropout": 0, "learning_rate": 0.003, "evaluate_every": 4},
    "runs": {
        "bge-a": RUN | {"tables": ["table4", "table8"], "settings": {"num_layers": "all"}},
        "golden": RUN | {"seeds": [0, 1], "tables": ["table4"]},
        "1-o-1-bge-a": RUN | {"teachers": ["bge-a"], "seeds": [0, 1], "tables": ["table4", "past"]},
        "mkdm": RUN
        | {"stage_one_set": "labelled", "teachers": ["bge-a"], "seeds": [0, 1], "tables": TABLES}
        | {"settings": {"list_weight": 0.3, "num_layers": 2}},
    },
    "ensembles": {"ensemble": {"of": ["1-o-1-bge-a", "golden"], "tables": ["table4"]}},
    "latency": ["mkdm", "bge-a"],
}


def write_inputs(folder: Path, tokenizer: PreTrainedTokenizerFast) -> dict[str, str]:
    """A tiny encoder and three sets; returns the settings that name them."""
    torch.manual_seed(0)
    AutoModel.from_config(tiny_config("bert", tokenizer)).save_pretrained(folder / "encoder")
    tokenizer.save_pretrained(folder / "encoder")
    sets = {"labelled": {"train": [90, 70]}, "valid": {"valid": [120]}, "test": {"test": [60, 80]}}
    for name, rows in sets.items():
        write_training_set(folder / name, rows, 24, tokenizer=tokenizer_version(tokenizer), make=learnable)
    return {
        "sets": ",".join(f"{name}={folder / name}" for name in sets),
        "encoders": f"tiny={folder / 'encoder'}",
        "output": str(folder / "output"),
    }


def write_plan(path: Path, **changes: Any) -> str:
    """The plan with changes; returns its path."""
    path.write_text(yaml.safe_dump(PLAN | changes, sort_keys=False))
    return str(path)
