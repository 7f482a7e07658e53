"""Measures the job and the scorer beside the usual tools, on the same pairs and weights: `mkdm benchmark`.

Each side runs in a process of its own, sides take turns round by round, and medians are shown with their spread.
"""

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jobs.engine import run_job
from jobs.reports import (
    OPENVINO_PEER,
    OUR_SIDES,
    BenchmarkResults,
    LatencyResult,
    Machine,
    Once,
    Side,
    SideResult,
    Workplace,
    default_sides,
    draw_chart,
    model_mb,
    quality,
    run_json,
    run_latency,
    run_once,
    summary,
)
from mkdm.columns import GOLDEN_LABEL, PAIR, PAIR_KEY
from mkdm.config import parse_config, require_at_least
from mkdm.errors import ConfigError, InputError

FOLDER = Path("build", "benchmark")
FIRST = 64
"""Pairs that every side scores before the rounds; a whole side's time for them is the part that does not grow."""
ALWAYS_NEEDS = ("deltalake", "psutil")
NEEDS = {
    "ray": "ray",
    "onnxruntime": "onnxruntime",
    "ctranslate2": "ctranslate2",
    "CrossEncoder": "sentence_transformers",
    "openvino": "nncf",
}
"""By peer or backend, the package that it needs."""
OPENVINO_PEER_NEEDS = (
    "optimum-intel 2.2.0 wants transformers < 5.6, so that it has no place beside ours: make an environment with pip "
    "install 'sentence-transformers[openvino]' datasets, and give its Python as --peer-python"
)


@dataclass(frozen=True)
class BenchmarkConfig:
    """Measure the job and the scorer by backend and precision beside the usual tools, on the same pairs and weights.

    Raises:
        ConfigError: a number outside its range, or a side that there is not.
    """

    model: str
    """Folder of the student to measure; its encoder is a BERT."""
    pairs: str
    """Parquet file with query_id, passage_id, query, passage, and perhaps golden_label (or label), 0 or 1."""
    labels: str | None = None
    """Parquet file with query_id, passage_id, golden_label, if the pairs have none and AUC is wanted."""
    sides: str | None = None
    """What to measure, joined by commas: job:BACKEND:PRECISION, scorer:BACKEND:PRECISION, CrossEncoder:PRECISION,
    CrossEncoder-openvino:PRECISION, pipeline:PRECISION, predict_batch_udf:PRECISION, ray:PRECISION,
    onnxruntime:PRECISION, ctranslate2:PRECISION. Default: all that suit the machine."""
    peer_python: str | None = None
    """Python of an environment with sentence-transformers[openvino] and datasets, for CrossEncoder-openvino: what that
    needs does not fit in ours."""
    rows: int = 20000
    """Pairs that ours, predict_batch_udf and ray score, evenly spread over the file."""
    peer_rows: int = 300
    """Pairs that the other peers score, evenly spread over those."""
    rounds: int = 3
    """How often each side runs, in turns."""
    widen: int = 1
    """Times the student's hidden size, with the same scores; 2 makes BERT-base's 768 of 384."""
    latency: Literal["no", "also", "only"] = "no"
    """Whether to score pairs one at a time, by number of layers, with sides that run without Spark or Ray."""
    layers: str = "1,3,5,7,9,12"
    """Numbers of layers of the students of random weights that latency is measured with."""
    latency_pairs: int = 200
    """Pairs that are scored one at a time."""
    output: str = "benchmark"
    """Local folder for benchmark.json and benchmark.png."""

    def __post_init__(self) -> None:
        require_at_least(self, 1, "rows", "peer_rows", "rounds", "widen", "latency_pairs")
        if not all(part.strip().isdigit() and int(part) for part in self.layers.split(",")):
            raise ConfigError(f"--layers is {self.layers!r}; it must be numbers from 1 on, joined by commas")
        self.chosen_sides("cpu")

    def chosen_sides(self, device: str) -> list[Side]:
        """The sides to measure on a machine with that device.

        Raises:
            ConfigError: there is no such side, or its package is not installed.
        """
        if self.sides is None:
            sides = default_sides(device, self.peer_python is not None)
        else:
            sides = [Side.parse(text) for text in dict.fromkeys(self.sides.split(","))]
        for package in ALWAYS_NEEDS:
            if find_spec(package) is None:
                raise ConfigError(f"mkdm benchmark needs {package}: pip install 'mkdm[bench,cpu]'")
        for side in sides:
            if side.name == OPENVINO_PEER and self.peer_python is None:
                raise ConfigError(f"{side} needs a Python of its own: {OPENVINO_PEER_NEEDS}")
            if side.name == OPENVINO_PEER and shutil.which(self.peer_python or "") is None:
                raise ConfigError(f"--peer-python is {self.peer_python}, which is no program: {OPENVINO_PEER_NEEDS}")
            package = NEEDS.get(side.backend or side.name, "torch")
            if find_spec(package) is None:
                raise ConfigError(f"{side} needs {package}: pip install 'mkdm[bench,cpu]', or leave it out of --sides")
        return sides


def run(config: BenchmarkConfig) -> BenchmarkResults:
    """Run all sides; write benchmark.json and benchmark.png to the output folder.

    Raises:
        InputError: no such file of pairs or golden labels, or a column is missing.
        RunFailedError: a side failed; the text has its last line.
    """
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    place = Workplace(FOLDER, config.peer_python or sys.executable)
    golden_labels = _write_pairs(config, place)
    machines = [_machine()]
    if config.sides is None and config.peer_python is None and machines[0].device == "cpu":
        _say(f"{OPENVINO_PEER} left out: {OPENVINO_PEER_NEEDS}")
    sides = config.chosen_sides(machines[0].device)
    student = _prepare(config, place, sides)
    whole: dict[Side, list[Once]] = {side: [] for side in sides if config.latency != "only"}
    single: dict[Side, list[tuple[str, list[list[float]]]]] = {
        side: [] for side in sides if config.latency != "no" and not side.whole and side.name != OPENVINO_PEER
    }
    layers = _layers(config)
    first: dict[Side, float] = {}
    for side in whole:  # one that cannot run at all ends the benchmark here
        _say(f"{side}, {FIRST} pairs alone")
        first[side] = run_once(side, place, "first").seconds
    for number in range(config.rounds):
        machines += [_machine()] if number else []
        for side in whole:
            _say(f"round {number + 1} of {config.rounds}: {side}")
            whole[side].append(run_once(side, place, _pairs_of(side)))
        for side in single:
            _say(f"round {number + 1} of {config.rounds}: {side}, one pair at a time")
            single[side].append(run_latency(side, place, layers))
    results = BenchmarkResults(
        machine=_best(machines),
        student=student,
        rounds=config.rounds,
        sides=[_side_result(side, runs, first[side], place, student, golden_labels) for side, runs in whole.items()],
        latency=[one for side, runs in single.items() for one in _latency_results(side, runs, layers)],
    )
    output = Path(config.output)
    output.mkdir(parents=True, exist_ok=True)
    results.write(output / "benchmark.json")
    draw_chart(results, output / "benchmark.png")
    return results


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def _pairs_of(side: Side) -> str:
    return "pairs" if side.whole or side.name in OUR_SIDES else "peer_pairs"


def _layers(config: BenchmarkConfig) -> list[int]:
    return sorted({int(part) for part in config.layers.split(",")}) if config.latency != "no" else []


def _write_pairs(config: BenchmarkConfig, place: Workplace) -> pa.Table | None:
    """Write the parts of the pairs that are scored; return the golden labels, if there are any."""
    from deltalake import write_deltalake

    table = _read(config.pairs, "pairs", PAIR)
    own = next((name for name in (GOLDEN_LABEL, "label") if name in table.column_names), None)
    golden_labels = table.select([*PAIR_KEY, own]).rename_columns([*PAIR_KEY, GOLDEN_LABEL]) if own else None
    if config.labels is not None:
        golden_labels = _read(config.labels, "golden labels", (*PAIR_KEY, GOLDEN_LABEL))
        golden_labels = golden_labels.select([*PAIR_KEY, GOLDEN_LABEL])
    table = pa.table({name: table[name].cast(pa.string()) for name in PAIR})
    pairs = _spread(table, config.latency_pairs if config.latency == "only" else config.rows)
    parts = {
        "pairs": pairs,
        "peer_pairs": _spread(pairs, config.peer_rows),
        "first": _spread(pairs, FIRST),
        "single": _spread(pairs, config.latency_pairs),
    }
    for name, part in parts.items():
        pq.write_table(part, place.file(name))
    for name in ("pairs", "first"):
        write_deltalake(str(place.folder / name), parts[name])
    return golden_labels


def _read(path: str, what: str, columns: Sequence[str]) -> pa.Table:
    if not Path(path).exists():
        raise InputError(f"no Parquet file of {what} at {path}")
    table = pq.read_table(path)
    missing = [name for name in columns if name not in table.column_names]
    if missing:
        raise InputError(f"{path} lacks {', '.join(missing)}; it has {', '.join(table.column_names)}")
    if not table.num_rows:
        raise InputError(f"{path} has no row")
    return table


def _spread(table: pa.Table, rows: int) -> pa.Table:
    """So many rows, evenly spread over the table."""
    rows = min(rows, table.num_rows)
    return table.take([row * table.num_rows // rows for row in range(rows)])


def _machine() -> Machine:
    _say("measuring the machine's fastest matrix products")
    return Machine(**run_json("mkdm.benchmark.gemm_peak"))


def _best(machines: list[Machine]) -> Machine:
    """The machine with the highest peak of each precision that was measured."""
    one = machines[0]
    peaks = {name: max(machine.peaks[name] for machine in machines) for name in one.peaks}
    return Machine(one.device, one.name, one.cores, one.memory_gb, peaks)


def _prepare(config: BenchmarkConfig, place: Workplace, sides: list[Side]) -> dict[str, Any]:
    _say("making the models and the reference scores")
    onnx = [side.precision for side in sides if side.name == "onnxruntime"]
    ctranslate2 = [side.precision for side in sides if side.name == "ctranslate2"]
    openvino = dict.fromkeys(side.precision for side in sides if side.backend == "openvino")
    flags = {
        "--model": config.model,
        "--pairs": str(place.file("pairs")),
        "--peer-pairs": str(place.file("peer_pairs")),
        "--output": str(place.folder),
        "--widen": str(config.widen),
        "--onnx": f"[{','.join(onnx)}]",
        "--ctranslate2": f"[{','.join(ctranslate2)}]",
        "--openvino": f"[{','.join(openvino)}]",
        "--layers": f"[{','.join(map(str, _layers(config)))}]",
    }
    told = run_json("mkdm.benchmark.setup", *(part for flag in flags.items() for part in flag))
    return {"model": config.model, "widen": config.widen, **told}


def _side_result(
    side: Side,
    runs: list[Once],
    first_seconds: float,
    place: Workplace,
    student: dict[str, Any],
    golden_labels: pa.Table | None,
) -> SideResult:
    name = _pairs_of(side)
    keys = pq.read_table(place.file(name), columns=list(PAIR_KEY))
    reference = pq.read_table(place.file("reference")).join(keys, list(PAIR_KEY), join_type="inner")
    kinds = runs[0].process.memory_mb
    return SideResult(
        side=str(side),
        precision=runs[0].precision,
        pairs=keys.num_rows,
        pair_gflop=student["pair_gflop" if name == "pairs" else "peer_pair_gflop"],
        seconds=[one.seconds for one in runs],
        command_seconds=[one.process.seconds for one in runs],
        fixed_seconds=first_seconds if side.whole else None,
        fixed_pairs=min(FIRST, keys.num_rows) if side.whole else 0,
        memory_mb={kind: max(one.process.memory_mb[kind] for one in runs) for kind in kinds},
        model_mb=model_mb(side, place),
        quality=quality(runs[-1].scores, reference, golden_labels),
    )


def _latency_results(side: Side, runs: list[tuple[str, list[list[float]]]], layers: list[int]) -> list[LatencyResult]:
    results = []
    for place, number in enumerate(layers):
        rounds = [milliseconds[place] for _, milliseconds in runs]
        p50, p99 = np.percentile(np.concatenate(rounds), [50, 99])
        qps = [1000 * len(one) / sum(one) for one in rounds]
        results.append(LatencyResult(str(side), runs[0][0], number, qps, float(p50), float(p99)))
    return results


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print the tables."""
    (config,) = parse_config("mkdm benchmark", argv, BenchmarkConfig)
    print(summary(run(config)))
    print(f"\n{config.output}/benchmark.json, {config.output}/benchmark.png")


if __name__ == "__main__":
    run_job(main)
