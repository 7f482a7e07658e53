"""Ray Data over the student's weights, Parquet to Parquet: one actor with the model, all the machine's cores."""

import logging
import os
import shutil
import time
from pathlib import Path
from typing import Any

import torch

from mkdm.benchmark.peers import transformers
from mkdm.columns import PAIR_KEY, PASSAGE, QUERY, SCORE

PEER_ROWS = 1024
"""Pairs of a block's batch, which are sorted together."""


class RayScorer:
    """The actor of `map_batches`; loads the model once."""

    def __init__(self, folder: str, precision: str, threads: int) -> None:
        torch.set_num_threads(threads)  # Ray would leave it as many as it reserves cores
        self._score = transformers(folder, precision)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """A batch of pairs by column -> their keys and scores."""
        scores = self._score(batch[QUERY].tolist(), batch[PASSAGE].tolist())
        return {name: batch[name] for name in PAIR_KEY} | {SCORE: scores}


def score_with_ray(folder: str, precision: str, pairs: str, output: str) -> float:
    """Score a Parquet file of pairs into a folder of Parquet files.

    Returns:
        Seconds from reading to written, model load included, Ray's own start left out.
    """
    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
    import ray

    cores, gpus = len(os.sched_getaffinity(0)), int(torch.cuda.is_available())
    ray.init(
        address="local",
        num_cpus=cores,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        _node_ip_address="127.0.0.1",
    )
    try:
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        ray.data.DataContext.get_current().enable_progress_bars = False
        shutil.rmtree(output, ignore_errors=True)
        started = time.perf_counter()
        rows = ray.data.read_parquet(str(Path(pairs).resolve()), columns=[*PAIR_KEY, QUERY, PASSAGE])
        scored = rows.map_batches(
            RayScorer,
            fn_constructor_args=(folder, precision, torch.get_num_threads()),
            compute=ray.data.ActorPoolStrategy(size=1),
            batch_size=PEER_ROWS,
            num_cpus=max(1, cores - 1),  # the tasks that read and write need one to be scheduled at all
            num_gpus=gpus,
        )
        scored.write_parquet(str(Path(output).resolve()))
        return time.perf_counter() - started
    finally:
        ray.shutdown()
