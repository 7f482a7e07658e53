"""Training pairs/s by feed: Petastorm, plain pyarrow, and rows that are in memory already; the same steps of each.

`python tests/scale/training_feeds.py --encoder DIR --training-set DIR [--valid-set DIR] [--layers 3] [--rounds 2]`
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

import pyarrow  # noqa: E402, F401 (before torch)

from mkdm.train import arrow_feed  # noqa: E402
from mkdm.train import micro_batches as feed  # noqa: E402
from mkdm.train.config import TrainConfig  # noqa: E402
from mkdm.train.loop import train  # noqa: E402
from mkdm.train.rows import TrainingRows  # noqa: E402

ROWS: dict[tuple[str, str], list[TrainingRows]] = {}


def row_groups(training_set: Any, split: str, **settings: Any) -> Iterator[TrainingRows]:
    """The feed `memory`: rows that were read before the clock ran."""
    yield from ROWS[training_set.folder, split]


def rate(settings: dict[str, Any], name: str) -> float:
    """Pairs/s over all steps but the first and those with a validation."""
    with tempfile.TemporaryDirectory() as folder:
        train(TrainConfig(**settings, feed=name, output=folder))
        lines = Path(folder, "training_log.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines[2:]]
    steps = [record for record in records if "auc" not in record]
    return len(steps) / sum(1 / record["pairs_per_s"] for record in steps)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--encoder", required=True)
    parser.add_argument("--training-set", required=True)
    parser.add_argument("--valid-set")
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=256)
    arguments = parser.parse_args()
    settings = {
        "encoder": arguments.encoder,
        "training_set": arguments.training_set,
        "valid_set": arguments.valid_set,
        "num_layers": arguments.layers,
        "batch_size": arguments.batch_size,
        "dropout": 0.0,
        "valid_rows": 64,
        "evaluate_every": 10**9,
        "checkpoint_every": 10**9,
    }
    feed.FEEDS["memory"] = "training_feeds"
    sys.modules["training_feeds"] = sys.modules[__name__]
    training_set = feed.TrainingSet.read(arguments.training_set)
    ROWS[training_set.folder, "train"] = list(arrow_feed.row_groups(training_set, "train", seed=0, epoch=0))
    rates: dict[str, list[float]] = {"memory": [], "petastorm": [], "arrow": []}
    for number in range(arguments.rounds):
        for name, found in rates.items():
            found.append(rate(settings, name))
            print(f"round {number + 1} of {arguments.rounds}: {name} {found[-1]:.1f} pairs/s", flush=True)
    base = median(rates["memory"])
    for name, found in rates.items():
        spread = f"{min(found):.1f}–{max(found):.1f}"
        print(f"{name:<10}{median(found):>8.1f} pairs/s, {spread}, {median(found) / base:.1%} of rows in memory")


if __name__ == "__main__":
    main()
