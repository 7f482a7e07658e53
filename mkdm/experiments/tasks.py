"""What `mkdm experiments` does for each run of a plan, a task at a time: train, label, build a set."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mkdm.errors import ConfigError
from mkdm.experiments.plan import Plan, PlannedRun, instance
from mkdm.experiments.sets import labelled_set
from mkdm.model import load_checkpoint, model_version
from mkdm.scoring import (
    LoadedBackend,
    SeparatePairEncoder,
    Template,
    TextReader,
    load_backend,
    score_at_once,
    token_budget_batches,
)
from mkdm.train import VALID, TrainConfig, TrainingRows, TrainingSet, padded_batch, row_groups, train

TEST = "test"


def named(text: str, flag: str) -> dict[str, str]:
    """By name, its folder.

    Raises:
        ConfigError: it is not NAME=FOLDER, joined by commas.
    """
    parts = [part.partition("=") for part in text.split(",")]
    if not all(name and folder for name, _, folder in parts):
        raise ConfigError(f"{flag} is {text!r}; it takes NAME=FOLDER, joined by commas")
    return {name.strip(): folder.strip() for name, _, folder in parts}


@dataclass(frozen=True)
class Task:
    """Something to do in a process of its own, once what it needs is done."""

    name: str
    needs: tuple[str, ...]
    function: Callable[..., None]
    arguments: tuple[Any, ...]


class Workplace:
    """Where the files of an experiment are.

    Args:
        sets: NAME=FOLDER, joined by commas.
        encoders: NAME=FOLDER, joined by commas.

    Raises:
        ConfigError: they are not.
    """

    def __init__(self, output: str, sets: str, encoders: str) -> None:
        self.output = Path(output)
        self.sets, self.encoders = named(sets, "--sets"), named(encoders, "--encoders")

    def run_folder(self, name: str) -> Path:
        """The student of a run's instance."""
        return self.output / "runs" / name

    def scores_file(self, name: str) -> Path:
        """The scores of a run's instance: float32 of each row of the splits valid and test."""
        return self.output / "scores" / f"{name}.npz"

    def label_file(self, set_name: str, run: PlannedRun) -> Path:
        """float32 of each row of a set, by the first instance of a run as it is now.

        Raises:
            ModelError: it is not trained.
        """
        version = model_version(self.run_folder(run.first))
        made_of = f"{version}-{TrainingSet.read(self.sets[set_name]).fingerprint[:16]}"
        return self.output / "labels" / set_name / f"{run.name}-{made_of}.npy"

    def measured_on(self) -> dict[str, str]:
        """What the scores of a run are of: by split, the set's fingerprint."""
        return {split: TrainingSet.read(self.sets[split]).fingerprint for split in (VALID, TEST)}

    def set_folder(self, set_name: str, labelled: bool) -> str:
        """A set as given, or with the labels of the plan's teachers."""
        return str(self.output / "sets" / set_name) if labelled else self.sets[set_name]


def tasks_of(plan: Plan, place: Workplace, only: set[str] | None) -> list[Task]:
    """What is to be done for these runs, in the order of the plan.

    Raises:
        ConfigError: the command line lacks the folder of a set or encoder.
    """
    runs = [run for run in plan.runs if only is None or run.name in only]
    for run in runs:
        if run.encoder not in place.encoders:
            raise ConfigError(f"{run.name} starts from {run.encoder!r}: name its folder with --encoders")
    for name in sorted({VALID, TEST} | plan.base_sets()):
        if name not in place.sets:
            raise ConfigError(f"the plan uses the set {name!r}: name its folder with --sets")
    tasks: dict[str, Task] = {}
    for run in runs:
        needs = [f"set {name}" for name in run.sets if plan.labels_itself(run)]
        for set_name in run.sets if needs else ():
            _set_tasks(plan, place, set_name, tasks)
        for seed in run.seeds:
            name = f"train {instance(run.name, seed)}"
            tasks.setdefault(name, Task(name, tuple(needs), train_one, (plan, place, run, seed)))
    return list(tasks.values())


def _set_tasks(plan: Plan, place: Workplace, set_name: str, tasks: dict[str, Task]) -> None:
    models = plan.teachers_on(set_name)
    for model in models:
        name = f"label {set_name} by {model}"
        trained = f"train {plan.run(model).first}"
        tasks.setdefault(name, Task(name, (trained,), label_one, (plan, place, set_name, model)))
    needs = tuple(f"label {set_name} by {model}" for model in models)
    tasks.setdefault(f"set {set_name}", Task(f"set {set_name}", needs, build_set, (plan, place, set_name)))


def train_one(plan: Plan, place: Workplace, run: PlannedRun, seed: int) -> None:
    """Train one instance of a run and score the splits valid and test with it."""
    name = instance(run.name, seed)
    folder, scores = place.run_folder(name), place.scores_file(name)
    chosen = {**plan.settings, **run.settings}
    labelled = plan.labels_itself(run)
    stage_one = place.set_folder(run.stage_one_set, labelled) if run.stage_one_set else None
    config = TrainConfig(
        encoder=place.encoders[run.encoder],
        training_set=place.set_folder(run.training_set, labelled),
        valid_set=place.sets[run.valid_set],
        stage_one_set=stage_one,
        output=str(folder),
        teachers=",".join(run.teachers) or "none",
        seed=seed,
        **chosen,
    )
    started = time.monotonic()
    best = train(config)
    measured = {"model_version": model_version(folder), "measured_on": place.measured_on()}
    record_file = scores.with_suffix(".json")
    if scores.exists() and measured.items() <= json.loads(record_file.read_text()).items():
        return
    model = load_checkpoint(folder)[0]
    found = {split: score_set(folder, TrainingSet.read(place.sets[split])) for split in (VALID, TEST)}
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    record = {
        "run": run.name,
        "seed": seed,
        "tables": list(run.tables),
        "note": run.note,
        "best": best,
        "teachers": list(run.teachers),
        "layers": model.model.config.num_layers,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        **measured,
        "seconds": round(time.monotonic() - started, 1),
        "device": device,
        "settings": {name: value for name, value in asdict(config).items() if name in (*chosen, "seed")},
    }
    scores.parent.mkdir(parents=True, exist_ok=True)
    scores.unlink(missing_ok=True)  # never old scores beside a new record
    record_file.write_text(json.dumps(record, indent=1) + "\n")
    part = scores.with_suffix(".part.npz")
    np.savez(part, **found)
    part.replace(scores)


def score_set(folder: Path, training_set: TrainingSet) -> NDArray[np.float32]:
    """float32 of all rows of a set, in the order of its files, from the backend that scores pairs elsewhere too."""
    loaded = load_backend(folder, "auto", "auto")
    score = _score_rows(loaded, training_set.template)
    found = []
    for split in dict.fromkeys(file.split for file in training_set.files):
        training_set.check_files(split)
        for rows in row_groups(training_set, split, seed=0, epoch=0, shuffle=False, workers=2):
            scores = np.empty(len(rows), dtype=np.float32)
            for batch in token_budget_batches(rows.lengths, loaded.backend.token_budget):
                scores[batch] = score(rows.take(batch))
            found.append(scores)
    return np.concatenate(found)


def _score_rows(loaded: LoadedBackend, template: Template) -> Callable[[TrainingRows], NDArray[np.float32]]:
    """What scores the rows of a batch, float32[n]."""
    backend, encoder = loaded.backend, loaded.encoder()
    if not isinstance(backend, TextReader):
        return lambda rows: backend.score(padded_batch(rows, template))[:, 0]
    assert isinstance(encoder, SeparatePairEncoder)

    def score(rows: TrainingRows) -> NDArray[np.float32]:
        pairs = encoder.of_rows(rows.input_ids, rows.lengths, rows.query_lengths)
        return score_at_once(backend, encoder, pairs)[:, 0]

    return score


def label_one(plan: Plan, place: Workplace, set_name: str, model: str) -> None:
    """Score a whole set with a run's first instance."""
    file = place.label_file(set_name, plan.run(model))
    if file.exists():
        return
    labels = score_set(place.run_folder(plan.run(model).first), TrainingSet.read(place.sets[set_name]))
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part.npy")
    np.save(part, labels)
    part.replace(file)


def build_set(plan: Plan, place: Workplace, set_name: str) -> None:
    """Write a set with the labels of its teachers."""
    runs = {teacher: plan.run(teacher) for teacher in plan.teachers_on(set_name)}
    labels = {
        teacher: (model_version(place.run_folder(run.first)), np.load(place.label_file(set_name, run)))
        for teacher, run in runs.items()
    }
    labelled_set(TrainingSet.read(place.sets[set_name]), labels, Path(place.set_folder(set_name, True)))
