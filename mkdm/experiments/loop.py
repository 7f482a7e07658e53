"""Trains all runs of a plan, where there is no Spark: `python -m mkdm.experiments`. `mkdm experiments` calls it.

Teachers are trained first, then they label the sets, then the students that learn from them. Each run's scores of the
splits valid and test are kept; `mkdm.experiments.results` measures them.
"""

import contextlib
import json
import os
import signal
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import torch

from mkdm.benchmark import SideConfig, latency
from mkdm.config import parse_config
from mkdm.errors import ConfigError, MkdmError, TrainingError
from mkdm.experiments.plan import Plan
from mkdm.experiments.tasks import Task, Workplace, tasks_of


@dataclass(frozen=True)
class ExperimentsConfig:
    """Train the runs of a plan, each from where it was left, and keep their scores.

    Raises:
        ConfigError: a number outside its range, or a name without a folder.
    """

    plan: str
    """YAML file with the runs."""
    sets: str
    """Training sets by name, as NAME=FOLDER joined by commas; valid and test among them, with such a split."""
    encoders: str
    """Pretrained encoders by name, as NAME=FOLDER joined by commas."""
    output: str
    """Folder for students, labels and scores."""
    parallel: int = 1
    """Runs at once, each in a process of its own; they share one GPU."""
    latency_pairs: str | None = None
    """Parquet file with query_id, passage_id, query, passage, to time the plan's students on, one pair at a time."""
    only: str | None = None
    """Runs to train, joined by commas, with the teachers that they need; default: all of the plan."""
    seconds: float | None = None
    """Seconds after which it stops, wherever the runs are; the same command goes on."""

    def __post_init__(self) -> None:
        if self.parallel < 1:
            raise ConfigError(f"--parallel is {self.parallel}; it must be at least 1")
        self.place()

    def place(self) -> Workplace:
        """Where its files are."""
        return Workplace(self.output, self.sets, self.encoders)


def run(config: ExperimentsConfig) -> None:
    """Do all that is left of a plan.

    Raises:
        ConfigError: the plan or a name in it is at fault; nothing was started.
        TrainingError: a run failed, or time was up; all others went on, and the same command does what is missing.
    """
    plan = Plan.read(config.plan)
    place = config.place()
    only = set(config.only.split(",")) if config.only else None
    tasks = tasks_of(plan, place, _with_teachers(plan, only) if only else None)
    logs = place.output / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    began, done, failed = time.monotonic(), set[str](), dict[str, str]()
    pool = ProcessPoolExecutor(config.parallel, get_context("spawn"), _settle, (config.parallel,))
    at_work: dict[Future[None], Task] = {}
    waiting, in_time = list(tasks), True
    while (waiting or at_work) and in_time:
        for task in [task for task in waiting if done.issuperset(task.needs)][: config.parallel - len(at_work)]:
            waiting.remove(task)
            at_work[pool.submit(_logged, task, logs / f"{task.name.replace(' ', '_')}.log")] = task
        if not at_work:
            break
        left = None if config.seconds is None else max(0.0, config.seconds - (time.monotonic() - began))
        ended, _ = wait(at_work, left, FIRST_COMPLETED)
        in_time = left is None or bool(ended)
        for future in ended:
            task, error = at_work.pop(future), future.exception()
            if error is None:
                done.add(task.name)
            else:
                failed[task.name] = " ".join(str(error).split()) or repr(error)
            print(f"{time.monotonic() - began:7.1f} s  {task.name}: {failed.get(task.name, 'done')}", flush=True)
    if not in_time:
        for process in list((pool._processes or {}).values()):
            os.kill(process.pid or 0, signal.SIGKILL)
    pool.shutdown(wait=in_time, cancel_futures=True)
    if not in_time:
        raise TrainingError(f"time was up with {len(done)} of {len(tasks)} tasks done: the same command goes on")
    if failed:
        name, text = next(iter(failed.items()))
        raise TrainingError(
            f"{len(failed)} of {len(tasks)} tasks failed, {len(waiting)} waited for them; {name}: {text}"
        )
    if config.latency_pairs:
        time_runs(plan, place, config.latency_pairs)


def time_runs(plan: Plan, place: Workplace, pairs: str) -> None:
    """Milliseconds of each pair, from texts to a score, by run; in `latency`, a file for each device."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    names = [plan.run(name).first for name in plan.latency]
    folders = {str(place.run_folder(name)): name for name in names if place.scores_file(name).exists()}
    file = place.output / "latency" / f"{device.replace(' ', '_')}.json"
    if not folders or file.exists():
        return
    measured = latency(SideConfig(side="scorer", models=",".join(folders), pairs=pairs, precision="auto"))
    milliseconds = {folders[folder]: times for folder, times in measured["milliseconds"].items()}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"device": device, "precision": measured["precision"], "milliseconds": milliseconds}))


def _with_teachers(plan: Plan, only: set[str]) -> set[str]:
    """The runs with all that they learn from.

    Raises:
        ConfigError: the plan has no such run.
    """
    unknown = sorted(only - {run.name for run in plan.runs})
    if unknown:
        raise ConfigError(f"--only names {unknown[0]!r}; the runs are {', '.join(run.name for run in plan.runs)}")
    while True:
        needed = {
            name
            for run in plan.runs
            if run.name in only
            for set_name in run.sets
            for name in plan.teachers_on(set_name)
            if plan.labels_itself(run)
        }
        if needed <= only:
            return only
        only = only | needed


def _settle(parallel: int) -> None:
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // parallel))


def _logged(task: Task, log: Path) -> None:
    with log.open("a") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        try:
            task.function(*task.arguments)
        except MkdmError as error:
            raise TrainingError(str(error)) from None


def main(argv: Sequence[str] | None = None) -> None:
    """Train the runs of a plan from the command line."""
    (config,) = parse_config("python -m mkdm.experiments", argv, ExperimentsConfig)
    run(config)
