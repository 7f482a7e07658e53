"""One side of `mkdm benchmark`, alone in its process: `python -m mkdm.benchmark.sides --side scorer …`.

Prints one line of JSON with what it measured.
"""

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from mkdm.benchmark.openvino_peer import score_apart
from mkdm.benchmark.peers import PEERS
from mkdm.benchmark.plain_student import plain_alpha, scores_of
from mkdm.benchmark.ray_peer import score_with_ray
from mkdm.columns import PAIR_KEY, PASSAGE, QUERY, SCORE
from mkdm.config import parse_config, run_command
from mkdm.scoring import Scorer

WARM_UP = 64
"""Pairs that are scored before the clock starts; one by one in a measurement of latency, a quarter as many."""

Score = Callable[[Sequence[str], Sequence[str]], NDArray[np.float32]]
Measured = dict[str, Any]


@dataclass(frozen=True)
class SideConfig:
    """Measure one side: all pairs at once, or one by one."""

    side: Literal["scorer", "CrossEncoder", "CrossEncoder-openvino", "pipeline", "onnxruntime", "ctranslate2", "ray"]
    """scorer: `Scorer.score`; otherwise a peer, over a plain model."""
    models: str
    """Folder of the student, or for a peer of the plain model; for latency several, joined by commas."""
    pairs: str
    """Parquet file with query_id, passage_id, query, passage."""
    precision: str
    """Number format of the model, as the side knows it."""
    backend: str = "auto"
    """What runs the scorer's model."""
    peer_python: str = sys.executable
    """Python of an environment with optimum-intel, for CrossEncoder-openvino."""
    scores: str | None = None
    """Parquet file, for Ray a folder, to write query_id, passage_id, score to; without it, latency is measured."""


def load(config: SideConfig, folder: str, streams: int | None = None) -> tuple[Score, str]:
    """The side's function from queries and passages to scores, and the precision that `auto` was settled to."""
    if config.side == "scorer":
        scorer = Scorer.load(folder, config.backend, config.precision, streams=streams)
        return scorer.score, scorer.precision
    return PEERS[config.side](folder, config.precision), config.precision


def measure(config: SideConfig, scores_file: str) -> Measured:
    """Load, warm up, then time all pairs once; for Ray, time it from reading to written.

    Returns:
        precision, seconds.
    """
    if config.side == "ray":
        seconds = score_with_ray(config.models, config.precision, config.pairs, scores_file)
        return {"precision": config.precision, "seconds": seconds}
    table = pq.read_table(config.pairs)
    if config.side == "CrossEncoder-openvino":
        precision, file = config.precision, Path(scores_file).with_suffix(".npy")
        seconds = score_apart(config.peer_python, config.models, precision, config.pairs, file)
        scores = scores_of(torch.from_numpy(np.load(file)), plain_alpha(config.models))
    else:
        queries, passages = table[QUERY].to_pylist(), table[PASSAGE].to_pylist()
        score, precision = load(config, config.models)
        score(queries[:WARM_UP], passages[:WARM_UP])
        ready = time.perf_counter()
        scores = score(queries, passages)
        seconds = time.perf_counter() - ready
    pq.write_table(table.select(PAIR_KEY).append_column(SCORE, pa.array(scores)), scores_file)
    return {"precision": precision, "seconds": seconds}


def latency(config: SideConfig) -> Measured:
    """Score the pairs one by one with each model, from texts to a score in Python.

    Returns:
        precision; milliseconds, by folder a list with the time of each pair.
    """
    table = pq.read_table(config.pairs, columns=[QUERY, PASSAGE])
    pairs = list(zip(table[QUERY].to_pylist(), table[PASSAGE].to_pylist(), strict=True))
    milliseconds: dict[str, list[float]] = {}
    precision = config.precision
    for folder in config.models.split(","):
        score, precision = load(config, folder, streams=1)
        for query, passage in pairs[: WARM_UP // 4]:
            score([query], [passage])
        milliseconds[folder] = []
        for query, passage in pairs:
            started = time.perf_counter()
            score([query], [passage])
            milliseconds[folder].append(1000 * (time.perf_counter() - started))
    return {"precision": precision, "milliseconds": milliseconds}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    (config,) = parse_config("python -m mkdm.benchmark.sides", argv, SideConfig)
    measured = measure(config, config.scores) if config.scores else latency(config)
    print(json.dumps(measured))


if __name__ == "__main__":
    run_command(main)
