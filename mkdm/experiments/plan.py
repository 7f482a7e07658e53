"""What a plan of training runs says: `mkdm experiments` reads it from a YAML file, and checks it first."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from mkdm.errors import ConfigError
from mkdm.train import VALID, TrainConfig

_OURS = ("encoder", "training_set", "valid_set", "stage_one_set", "output", "teachers", "seed")


@dataclass(frozen=True)
class PlannedRun:
    """One line of a table: a training run, once for each seed.

    Attributes:
        name: that no other run has; the id of the teacher, where others learn from it.
        encoder: name of an encoder on the command line, to start from.
        training_set: name of a set.
        stage_one_set: name of a set, for a first stage on soft labels alone.
        valid_set: name of the set whose split `valid` chooses the best checkpoint.
        teachers: names of runs to learn from, of which the first seed counts; or ids of teachers that the sets, as they
            are given, have labels of.
        seeds: of the runs.
        tables: where it belongs: table4 to table8, past, choice, or whatever a reader asks for.
        note: a few words for the tables.
        settings: of `mkdm train`, over those of the plan.
    """

    name: str
    encoder: str
    training_set: str
    stage_one_set: str | None = None
    valid_set: str = VALID
    teachers: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0,)
    tables: tuple[str, ...] = ()
    note: str = ""
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def sets(self) -> list[str]:
        """The sets that it trains on."""
        return [name for name in (self.stage_one_set, self.training_set) if name]

    @property
    def first(self) -> str:
        """The name of its first instance."""
        return instance(self.name, self.seeds[0])


@dataclass(frozen=True)
class Plan:
    """All runs, in the order in which they are started.

    Attributes:
        settings: of `mkdm train`, for all of them.
        ensembles: by name, the runs whose scores are averaged.
        latency: names of runs that are timed one pair at a time.
        tables: by ensemble, where it belongs.
    """

    settings: dict[str, Any]
    runs: tuple[PlannedRun, ...]
    ensembles: dict[str, tuple[str, ...]]
    latency: tuple[str, ...]
    tables: dict[str, tuple[str, ...]]

    @classmethod
    def read(cls, path: str) -> "Plan":
        """Read a plan.

        Raises:
            ConfigError: it cannot be read, or a name or setting in it is unknown.
        """
        try:
            content = yaml.safe_load(Path(path).read_text())
        except (OSError, yaml.YAMLError) as error:
            raise ConfigError(f"cannot read --plan {path}: {' '.join(str(error).split())}") from error
        try:
            return cls._of(content, path)
        except (TypeError, AttributeError, KeyError, ValueError) as error:
            raise ConfigError(f"{path} is no plan of runs: {error!r}; see notebooks/paper_tables.yaml") from error

    @classmethod
    def _of(cls, content: dict[str, Any], path: str) -> "Plan":
        runs = []
        for name, given in content["runs"].items():
            given = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
            runs.append(PlannedRun(name=str(name), **given))
        ensembles = {name: tuple(given["of"]) for name, given in content.get("ensembles", {}).items()}
        plan = cls(
            settings=dict(content.get("settings", {})),
            runs=tuple(runs),
            ensembles=ensembles,
            latency=tuple(content.get("latency", [])),
            tables={name: tuple(given.get("tables", [])) for name, given in content.get("ensembles", {}).items()},
        )
        plan._check(path)
        return plan

    def run(self, name: str) -> PlannedRun:
        """The run of that name."""
        return next(run for run in self.runs if run.name == name)

    def labels_itself(self, run: PlannedRun) -> bool:
        """Whether the teachers of a run are runs, too, so that its sets are to be labelled."""
        return any(teacher in {other.name for other in self.runs} for teacher in run.teachers)

    def teachers_on(self, set_name: str) -> list[str]:
        """The teachers whose labels a set needs, in the order of the plan."""
        wanted = {teacher for run in self.runs if set_name in run.sets for teacher in run.teachers}
        return [run.name for run in self.runs if run.name in wanted]

    def base_sets(self) -> set[str]:
        """The sets that the command line must name."""
        return {name for run in self.runs for name in (*run.sets, run.valid_set)}

    def _check(self, path: str) -> None:
        names = [run.name for run in self.runs]
        known = {field.name for field in fields(TrainConfig)} - set(_OURS)
        asked = [("", self.settings)] + [(run.name, run.settings) for run in self.runs]
        for name, settings in asked:
            for key in settings:
                if key not in known:
                    raise ConfigError(f"{path}: {key!r} of {name or 'settings'} is no setting of mkdm train for a plan")
        mentioned = {teacher for run in self.runs if self.labels_itself(run) for teacher in run.teachers}
        mentioned |= {name for members in self.ensembles.values() for name in members}
        mentioned |= set(self.latency)
        missing = sorted(mentioned - set(names))
        if missing:
            raise ConfigError(f"{path}: there is no run {missing[0]!r}; the runs are {', '.join(names)}")
        for run in self.runs:
            before = names[: names.index(run.name)]
            later = [name for name in run.teachers if name in names and name not in before]
            if later:
                raise ConfigError(f"{path}: {run.name} learns from {later[0]}, which must stand before it")


def instance(name: str, seed: int) -> str:
    """What a run with one seed is called."""
    return f"{name}-{seed}"
