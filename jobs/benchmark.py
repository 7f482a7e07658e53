"""Measures the scoring job, the scorer alone and CrossEncoder on the same pairs and weights: `mkdm benchmark`.

Each side runs in a process of its own, sides take turns round by round, and medians are shown with their spread.
"""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from threading import Event, Thread
from typing import Literal

import psutil
import pyarrow.parquet as pq

from jobs.command import run_job
from mkdm.config import parse_config
from mkdm.errors import ConfigError, InputError, RunFailedError

FOLDER = Path("build", "benchmark")
SIDES = ("mkdm score", "scorer", "CrossEncoder")
Figures = dict[str, float | str]


@dataclass(frozen=True)
class BenchmarkConfig:
    """Measure `mkdm score`, the scorer in plain Python and CrossEncoder.predict, on the same pairs and weights.

    Raises:
        ConfigError: a number outside its range.
    """

    model: str
    """Folder of the student to measure."""
    pairs: str
    """Parquet file with query_id, passage_id, query, passage."""
    rows: int = 20000
    """Pairs to score, evenly spread over the file."""
    rounds: int = 1
    """How often each side runs."""
    random_hidden_size: int | None = None
    """Measure a random 3-layer student of this hidden size instead, with the model's tokenizer; 768 is BERT-base's."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Precision of the job and the scorer; CrossEncoder runs in fp32, its default."""

    def __post_init__(self) -> None:
        for name in ("rows", "rounds"):
            if getattr(self, name) < 1:
                raise ConfigError(f"--{name} is {getattr(self, name)}; it must be at least 1")


def run(config: BenchmarkConfig) -> str:
    """Run all sides and return the table of medians.

    Raises:
        InputError: no such file of pairs.
        RunFailedError: a side failed; the text has its last line.
    """
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    pairs, model = FOLDER / "pairs.parquet", config.model
    if not Path(config.pairs).exists():
        raise InputError(f"no Parquet file of pairs at {config.pairs}")
    table = pq.read_table(config.pairs, columns=["query_id", "passage_id", "query", "passage"])
    rows = min(config.rows, table.num_rows)
    table = table.take([row * table.num_rows // rows for row in range(rows)])
    pq.write_table(table, pairs)
    if config.random_hidden_size:
        model = str(FOLDER / "student")
        flags = ["--model", config.model, "--output", model, "--hidden-size", str(config.random_hidden_size)]
        _run([sys.executable, "-m", "mkdm.benchmark_sides", "--side", "make_student", *flags])
    figures: dict[str, list[Figures]] = {side: [] for side in SIDES}
    for number in range(config.rounds):
        for side in SIDES:
            print(f"round {number + 1} of {config.rounds}: {side}", file=sys.stderr, flush=True)
            if side == "mkdm score":
                figures[side].append(_measure_job(model, pairs, config.precision, FOLDER / f"warehouse{number}"))
            else:
                name = "scorer" if side == "scorer" else "cross_encoder"
                flags = ["--side", name, "--model", model, "--pairs", str(pairs), "--precision", config.precision]
                output, seconds, _ = _run([sys.executable, "-m", "mkdm.benchmark_sides", *flags])
                figures[side].append(json.loads(output.splitlines()[-1]) | {"command_seconds": seconds})
    return summary(figures, table.num_rows)


def _measure_job(model: str, pairs: Path, precision: str, warehouse: Path) -> Figures:
    flags = ["--model", model, "--pairs", str(pairs), "--precision", precision, "--warehouse", str(warehouse)]
    output, seconds, peaks = _run([sys.executable, "-m", "jobs.cli", "score", *flags])
    lines = dict(line.split(maxsplit=1) for line in output.splitlines() if len(line.split(maxsplit=1)) == 2)
    job_seconds = float(lines["seconds"].replace(",", ""))
    rows = pq.read_metadata(pairs).num_rows
    return {
        "precision": precision,
        "load_seconds": seconds - job_seconds,
        "pairs_per_s": rows / job_seconds,
        "command_seconds": seconds,
        **peaks,
    }


def _run(command: list[str]) -> tuple[str, float, Figures]:
    """Run a command; its stdout, its wall seconds, and the peak memory (RSS, MB) of the JVM and of Spark's workers."""
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    peaks: Figures = {"jvm_mb": 0.0, "worker_mb": 0.0}
    done = Event()

    def watch() -> None:
        while not done.wait(0.25):
            for child in psutil.Process(process.pid).children(recursive=True):
                try:
                    kind = "jvm_mb" if child.name() == "java" else "worker_mb"
                    peaks[kind] = max(float(peaks[kind]), child.memory_info().rss / 2**20)
                except psutil.NoSuchProcess:
                    continue

    thread = Thread(target=watch, daemon=True)
    thread.start()
    output, errors = process.communicate()
    done.set()
    thread.join()
    if process.returncode:
        last = (errors.strip().splitlines() or ["it printed nothing"])[-1]
        raise RunFailedError(f"{' '.join(command[1:6])} … exited {process.returncode}: {last}")
    return output, time.monotonic() - started, peaks


def summary(figures: dict[str, list[Figures]], rows: int) -> str:
    """The table that `mkdm benchmark` prints."""

    def middle(side: str, name: str) -> float:
        return median(float(one.get(name, 0)) for one in figures[side])

    base = middle("CrossEncoder", "pairs_per_s")
    head = f"{'side':<14}{'precision':>10}{'pairs/s':>9}{'min–max':>14}{'× CrossEncoder':>16}{'whole command, s':>18}"
    lines = [f"{rows:,} pairs, medians of {len(figures[SIDES[0]])} round(s)", head]
    for side in SIDES:
        rates = [float(one["pairs_per_s"]) for one in figures[side]]
        spread = f"{min(rates):.1f}–{max(rates):.1f}"
        rate = middle(side, "pairs_per_s")
        precision = figures[side][0]["precision"]
        command = middle(side, "command_seconds")
        lines.append(f"{side:<14}{precision:>10}{rate:>9.1f}{spread:>14}{rate / base:>16.2f}{command:>18.1f}")
    share = middle("mkdm score", "pairs_per_s") / middle("scorer", "pairs_per_s")
    lines.append(f"the job runs at {share:.0%} of the scorer alone, its Spark start-up left out")
    lines.append(
        f"peak memory: JVM {middle('mkdm score', 'jvm_mb'):,.0f} MB, Python worker "
        f"{middle('mkdm score', 'worker_mb'):,.0f} MB; scorer alone {middle('scorer', 'peak_mb'):,.0f} MB"
    )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print the table."""
    (config,) = parse_config("mkdm benchmark", argv, BenchmarkConfig)
    print(run(config))


if __name__ == "__main__":
    run_job(main)
