"""The OpenVINO backend, for CPUs: runs the IR files that `mkdm export-model` made, a batch on every core at once."""

import os
import threading
from pathlib import Path

import numpy as np
import openvino
from numpy.typing import NDArray

from mkdm.errors import ConfigError, ModelError
from mkdm.model import (
    BY_SPEED,
    PLAIN,
    Prompting,
    check_fitness,
    load_tokenizer,
    missing,
    prompted_version,
    read_export,
    read_wording,
    saved_length,
    verify,
)
from mkdm.scoring.backend import WINDOW, LoadedBackend
from mkdm.scoring.encoding import Batch

TOKEN_BUDGET = 2048
_HINTS = {"fp32": "f32", "bf16": "bf16"}


class OpenVinoBackend:
    """Runs an IR file, by default a batch on each core, since cores that share a batch wait for each other.

    Args:
        xml: the IR file.
        precision: fp32, bf16 or int8, which the file was made for. What int8 leaves in floating point runs in bf16
            where the CPU has it.
        threads: how many cores to use; None takes those that this process may run on.
        streams: how many batches share them; None takes a core for each.

    Raises:
        ConfigError: bf16 on a CPU without it.
        ModelError: OpenVINO cannot read or compile the file.
    """

    out_of_memory: tuple[type[Exception], ...] = ()

    def __init__(self, xml: Path, precision: str, threads: int | None = None, streams: int | None = None) -> None:
        core = openvino.Core()
        has_bf16 = "bf16" in machine_precisions()
        if precision == "bf16" and not has_bf16:
            raise ConfigError("this CPU has no bf16: use --precision auto, int8 or fp32")
        self.precision = precision
        self.token_budget, self.window = TOKEN_BUDGET, WINDOW
        threads = threads or len(os.sched_getaffinity(0))
        self.streams = streams or threads
        settings = {
            "INFERENCE_PRECISION_HINT": _HINTS.get(precision, "bf16" if has_bf16 else "f32"),
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": self.streams,
            "ENABLE_CPU_PINNING": False,  # or all executors of a machine would sit on its first cores
        }
        try:
            self._model = core.compile_model(core.read_model(xml), "CPU", settings)
        except RuntimeError as error:
            raise ModelError(f"OpenVINO cannot run {xml}: {' '.join(str(error).split())[-200:]}") from error
        self._inputs = [node.get_any_name() for node in self._model.inputs]
        self._local = threading.local()
        # The first of all inferences must run alone: the binding's one-time initialisation lets go of the GIL, and a
        # second thread that meets it with the GIL in hand waits for ever (seen with OpenVINO 2026.4.1).
        one = np.ones((1, 2), dtype=np.int64)
        self.score(Batch(one, one, np.zeros_like(one)))

    def score(self, batch: Batch) -> NDArray[np.float32]:
        """int64[B, L] inputs -> float32[B, 2], score and logit; safe to call from several threads."""
        request = getattr(self._local, "request", None)
        if request is None:
            request = self._local.request = self._model.create_infer_request()
        outputs = request.infer([getattr(batch, name) for name in self._inputs], share_inputs=True)
        result: NDArray[np.float32] = outputs[0].copy()
        return result


def machine_precisions() -> tuple[str, ...]:
    """The precisions of IR files that this CPU runs well, fastest first."""
    has = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return tuple(name for name in BY_SPEED if name.upper() in has)


def load(
    folder: str | Path, precision: str, threads: int | None, streams: int | None, prompting: Prompting = PLAIN
) -> LoadedBackend:
    """Load an exported model; see `load_backend`."""
    check_fitness(folder, prompting)
    export = read_export(folder)
    chosen = None if export is None else export.choose(precision, machine_precisions())
    if export is None or chosen is None:
        raise ModelError(missing(folder, export, precision))
    backend = OpenVinoBackend(verify(folder, export.exported[chosen]), chosen, threads, streams)
    length = min(export.max_length, saved_length(folder) or export.max_length)
    version, wording = prompted_version(export.model_version, folder, prompting), read_wording(folder, prompting)
    return LoadedBackend(backend, load_tokenizer(folder), length, version, wording)
