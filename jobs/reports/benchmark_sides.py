"""What `mkdm benchmark` compares: the names of the sides, and how each is run once."""

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.reports.measured_process import Finished, run_process
from mkdm.columns import PAIR_KEY, SCORE
from mkdm.errors import ConfigError
from udfs.export import machine_precisions

OUR_SIDES = ("job", "scorer")
_TORCH = ("fp32", "bf16", "fp16")
OPENVINO_PEER = "CrossEncoder-openvino"
"""sentence-transformers' own OpenVINO backend, which runs in an environment of its own."""
PEER_PRECISIONS = {
    "CrossEncoder": _TORCH,
    OPENVINO_PEER: ("fp32", "int8"),
    "pipeline": _TORCH,
    "onnxruntime": ("fp32", "int8"),
    "ctranslate2": ("fp32", "int8"),
    "predict_batch_udf": _TORCH,
    "ray": _TORCH,
}
"""By peer, the precisions that it is measured in."""
WHOLE = ("job", "predict_batch_udf", "ray")
"""Sides that read and write tables; their time has a part that does not grow with the pairs, so they score them all."""
BASE = "CrossEncoder:fp32"
"""The side that others are told as multiples of."""


@dataclass(frozen=True)
class Side:
    """One way to score pairs: a name, for ours a backend, and a precision."""

    name: str
    backend: str
    precision: str

    @classmethod
    def parse(cls, text: str) -> "Side":
        """From job:BACKEND:PRECISION, scorer:BACKEND:PRECISION or PEER:PRECISION.

        Raises:
            ConfigError: it is none of these.
        """
        name, *rest = text.strip().split(":")
        if name in OUR_SIDES and len(rest) == 2 and all(rest):
            return cls(name, *rest)
        if name in PEER_PRECISIONS and len(rest) == 1 and rest[0] in PEER_PRECISIONS[name]:
            return cls(name, "", rest[0])
        known = ", ".join(f"{peer}:{'|'.join(precisions)}" for peer, precisions in PEER_PRECISIONS.items())
        raise ConfigError(
            f"--sides has {text!r}; a side is job:BACKEND:PRECISION, scorer:BACKEND:PRECISION, or one of {known}"
        )

    @property
    def whole(self) -> bool:
        """Whether it goes from table to table."""
        return self.name in WHOLE

    def __str__(self) -> str:
        return ":".join(part for part in (self.name, self.backend, self.precision) if part)


def default_sides(device: str, openvino_peer: bool = False) -> list[Side]:
    """All sides that make sense on a machine: ours by each backend and precision, and every peer.

    Args:
        openvino_peer: whether there is an environment for that one.
    """
    ours = ["torch:fp32", "torch:bf16"] + (["torch:fp16"] if device == "cuda" else [])
    peers = [BASE, "CrossEncoder:bf16", "pipeline:fp32", "predict_batch_udf:fp32", "ray:fp32"]
    if device == "cpu":
        ours += [f"openvino:{one}" for one in reversed(machine_precisions())]
        peers += [f"{name}:{one}" for name in ("onnxruntime", "ctranslate2") for one in ("fp32", "int8")]
        peers += [f"{OPENVINO_PEER}:{one}" for one in ("fp32", "int8")] if openvino_peer else []
    return [Side.parse(text) for text in [f"{name}:{one}" for one in ours for name in OUR_SIDES] + peers]


@dataclass(frozen=True)
class Workplace:
    """The folder that a benchmark works in.

    Attributes:
        peer_python: the Python of OPENVINO_PEER.
        folder: holds pairs.parquet, peer_pairs.parquet, first.parquet and single.parquet, `pairs` and `first` as Delta
            tables too; what `mkdm.benchmark.setup` makes; and in output/ what the last side wrote.
    """

    folder: Path
    peer_python: str = sys.executable

    def file(self, pairs: str) -> Path:
        """The Parquet file of some pairs."""
        return self.folder / f"{pairs}.parquet"

    def model(self, side: Side, layers: int | None = None) -> Path:
        """The model that a side runs, or the one of random weights with that many layers."""
        name = "student" if side.name in OUR_SIDES else "plain"
        return self.folder / (name if layers is None else f"{name}_{layers}")


@dataclass(frozen=True)
class Once:
    """One run of one side.

    Attributes:
        precision: as the side settled it, or as it was asked.
        seconds: that scoring took; for a whole side from table to table, what it loads included, the start of Spark or
            Ray left out; for the others from texts to scores, loaded and warm.
        scores: query_id, passage_id, score.
    """

    precision: str
    seconds: float
    process: Finished
    scores: pa.Table


def run_once(side: Side, place: Workplace, pairs: str) -> Once:
    """Score `pairs`, `peer_pairs` or `first` with a side, in a process of its own.

    Raises:
        RunFailedError: it failed; the text has its last line.
    """
    output = place.folder / "output"
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir()
    model, table, scores = str(place.model(side)), str(place.folder / pairs), str(output / SCORE)
    if side.name == "job":
        flags = ["--model", model, "--pairs", table, "--warehouse", str(output)]
        process = _run_module("jobs", "score", *flags, *_ours(side))
        seconds = float(_report(process.output)["seconds"].replace(",", ""))
        return Once(side.precision, seconds, process, _delta(output / "scores"))
    if side.name == "predict_batch_udf":
        flags = ["--model", model, "--pairs", table, "--precision", side.precision, "--scores", scores]
        process = _run_module("jobs.reports.predict_batch_peer", *flags)
        return Once(side.precision, _json(process)["seconds"], process, _delta(Path(scores)))
    flags = ["--side", side.name, "--models", model, "--pairs", str(place.file(pairs)), "--scores", scores]
    flags += ["--peer-python", place.peer_python] if side.name == OPENVINO_PEER else []
    process = _run_module("mkdm.benchmark.sides", *flags, *_ours(side))
    told = _json(process)
    return Once(told["precision"], told["seconds"], process, pq.read_table(scores))


def run_latency(side: Side, place: Workplace, layers: list[int]) -> tuple[str, list[list[float]]]:
    """Score the pairs of `single` one by one with students of each number of layers.

    Returns:
        The precision, and for each number of layers the milliseconds of each pair.
    """
    models = [str(place.model(side, number)) for number in layers]
    flags = ["--side", side.name, "--models", ",".join(models), "--pairs", str(place.file("single"))]
    told = run_json("mkdm.benchmark.sides", *flags, *_ours(side))
    return told["precision"], [told["milliseconds"][model] for model in models]


def run_json(module: str, *flags: str) -> dict[str, Any]:
    """Run a module of ours that prints one line of JSON at its end."""
    return _json(_run_module(module, *flags))


def _run_module(module: str, *flags: str) -> Finished:
    """Run a module of ours, and not one of its name in the folder where the command was given."""
    return run_process([sys.executable, "-P", "-m", module, *flags])


def model_mb(side: Side, place: Workplace) -> float | None:
    """Size of the weights on disk as the side reads them, in MB; None where the side is to choose them."""
    if side.backend == "auto":
        return None
    pattern = {"openvino": f"openvino/*{side.precision}*", "onnxruntime": f"*{side.precision}.onnx"}
    pattern["ctranslate2"] = f"ctranslate2_{side.precision}/model.bin"
    if side.precision == "int8":
        pattern[OPENVINO_PEER] = "openvino/*qint8*"
    files = place.model(side).glob(pattern.get(side.backend or side.name, "*.safetensors"))
    return sum(path.stat().st_size for path in files if path.is_file()) / 1e6


def _ours(side: Side) -> list[str]:
    return (["--backend", side.backend] if side.backend else []) + ["--precision", side.precision]


def _json(process: Finished) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(process.output.splitlines()[-1])
    return told


def _report(output: str) -> dict[str, str]:
    """The lines of `mkdm score`, by their names."""
    return dict(line.split(maxsplit=1) for line in output.splitlines() if len(line.split(maxsplit=1)) == 2)


def _delta(folder: Path) -> pa.Table:
    from deltalake import DeltaTable

    return DeltaTable(str(folder)).to_pyarrow_table(columns=[*PAIR_KEY, SCORE])
