"""Measures what the runs of a plan kept: `python -m mkdm.experiments.results`. `mkdm experiments` makes tables of it.

It writes `results.jsonl` below the output: figures by run, seed, split and source; validations by step; latencies.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mkdm.config import parse_config, run_command
from mkdm.errors import InputError
from mkdm.evaluation import ALL, accuracy, auc, auc_measure, bootstrap, interval
from mkdm.experiments.loop import ExperimentsConfig
from mkdm.experiments.plan import Plan, instance
from mkdm.experiments.tasks import TEST
from mkdm.train import NO_GOLDEN_LABEL, VALID, TrainingRows, TrainingSet, query_numbers, row_groups

EXPERIMENTS, EXPERIMENT_STEPS, EXPERIMENT_LATENCY = "experiments", "experiment_steps", "experiment_latency"
RESULTS_FILE = "results.jsonl"
RESAMPLES = 200

Record = dict[str, Any]


@dataclass(frozen=True)
class GoldenSplit:
    """The golden labels of a split, -1 for none, and which query and source each pair belongs to."""

    golden_labels: NDArray[np.int64]
    query: NDArray[np.int64]
    of_source: NDArray[np.int8]
    sources: list[str]

    @classmethod
    def read(cls, folder: str) -> "GoldenSplit":
        """Read a set, in the order of its files."""
        found = TrainingSet.read(folder)
        splits = dict.fromkeys(file.split for file in found.files)
        parts = [part for split in splits for part in row_groups(found, split, seed=0, epoch=0, shuffle=False)]
        rows = TrainingRows.concat(parts)
        query = query_numbers(rows, found.template)
        return cls(rows.golden_labels.astype(np.int64), query, rows.sources, found.sources)

    def figures(self, scores: NDArray[np.float32], resamples: int) -> Iterator[Record]:
        """ACC, AUC and its 95 % interval over queries, of all pairs with a golden label and by source."""
        labelled = self.golden_labels != NO_GOLDEN_LABEL
        chosen = {ALL: labelled}
        chosen |= {name: labelled & (self.of_source == number) for number, name in enumerate(self.sources) if name}
        for source, rows in chosen.items():
            golden, found = self.golden_labels[rows], scores[rows]
            distinct, query = np.unique(self.query[rows], return_inverse=True)
            measure = {("", "auc"): auc_measure(query, golden, found.astype(np.float64))}
            drawn = bootstrap(measure, len(distinct), resamples, [0])
            low, high = interval(drawn["", "auc"]) if resamples else (None, None)
            yield {
                "source": source,
                "pairs": int(rows.sum()),
                "queries": len(distinct),
                "accuracy": accuracy(golden, found),
                "auc": auc(golden, found),
                "auc_low": low,
                "auc_high": high,
            }


def results(config: ExperimentsConfig) -> Iterator[tuple[str, Record]]:
    """The rows of each table; runs that are not finished have no figures, but the steps that they did.

    Raises:
        InputError: the scores are of other sets than those that are named.
    """
    plan, place = Plan.read(config.plan), config.place()
    splits = {name: GoldenSplit.read(place.sets[name]) for name in (VALID, TEST)}
    parameters: dict[str, int] = {}
    for run in plan.runs:
        for seed in run.seeds:
            name = instance(run.name, seed)
            who = {"run": run.name, "seed": seed, "tables": list(run.tables), "note": run.note}
            who |= {"teachers": list(run.teachers)}
            log = place.run_folder(name) / "training_log.jsonl"
            steps = list(_validations(log))
            yield from ((EXPERIMENT_STEPS, {"run": run.name, "seed": seed, **step}) for step in steps)
            record_file = place.scores_file(name).with_suffix(".json")
            if not place.scores_file(name).exists():
                if steps:
                    yield EXPERIMENTS, {**who, "state": f"cut off after step {_last_step(log):,}", **_UNKNOWN}
                continue
            record = json.loads(record_file.read_text())
            if record["measured_on"] != place.measured_on():
                raise InputError(
                    f"{place.scores_file(name)} was measured on other sets than --sets names: name those, or remove it"
                )
            parameters[run.name] = record["parameters"]
            facts = {key: record[key] for key in ("layers", "parameters", "device", "seconds")}
            facts |= {"settings": json.dumps(record["settings"]), "state": "complete"}
            yield from _figures({**who, **facts}, np.load(place.scores_file(name)), splits)
    for name, members in plan.ensembles.items():
        for number, seed in enumerate(plan.run(members[0]).seeds):
            files = [place.scores_file(instance(member, plan.run(member).seeds[number])) for member in members]
            if not all(file.exists() for file in files):
                continue
            loaded = [np.load(file) for file in files]
            mean = {split: np.mean([one[split] for one in loaded], axis=0) for split in splits}
            who = {"run": name, "seed": seed, "tables": list(plan.tables[name]), "teachers": list(members)}
            facts = {"note": f"average of {len(members)} students", "state": "complete", "settings": "{}"}
            total = sum(parameters[member] for member in members)
            yield from _figures({**_UNKNOWN, **who, **facts, "parameters": total}, mean, splits)
    for file in sorted((place.output / "latency").glob("*.json")):
        told = json.loads(file.read_text())
        for name, milliseconds in told["milliseconds"].items():
            yield (
                EXPERIMENT_LATENCY,
                {
                    "run": name.rpartition("-")[0],
                    "device": told["device"],
                    "precision": told["precision"],
                    "pairs_per_s": 1000 / float(np.mean(milliseconds)),
                    "p50_ms": float(np.percentile(milliseconds, 50)),
                    "p99_ms": float(np.percentile(milliseconds, 99)),
                },
            )


_UNKNOWN: Record = {"layers": None, "parameters": None, "device": None, "seconds": None, "settings": "{}"}


def _figures(who: Record, scores: Any, splits: dict[str, GoldenSplit]) -> Iterator[tuple[str, Record]]:
    for split, golden in splits.items():
        for figures in golden.figures(scores[split], RESAMPLES if split == TEST else 0):
            yield EXPERIMENTS, {**who, "split": split, **figures}


def _validations(log: Path) -> Iterator[Record]:
    if not log.exists():
        return
    for line in log.read_text().splitlines()[1:]:
        record = json.loads(line)
        if "auc" in record:
            names = ("stage", "step", "pairs_seen", "auc", "accuracy", "seconds")
            yield {name: record[name] for name in names}


def _last_step(log: Path) -> int:
    return int(json.loads(log.read_text().splitlines()[-1])["step"])


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and write."""
    (config,) = parse_config("python -m mkdm.experiments.results", argv, ExperimentsConfig)
    part = Path(config.output, f".{RESULTS_FILE}.part")
    with part.open("w") as file:
        for table, record in results(config):
            file.write(json.dumps({"table": table, **record}) + "\n")
    part.replace(Path(config.output, RESULTS_FILE))


if __name__ == "__main__":
    run_command(main)
