"""The OpenVINO backend, for CPUs: runs the IR files that `mkdm export-model` made, a batch on every core at once."""

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray
from openvino import opset13

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
    read_lexical,
    read_separation,
    read_wording,
    saved_length,
    text_part,
    verify,
)
from mkdm.scoring.backend import WINDOW, LoadedBackend, TextReader
from mkdm.scoring.encoding import Batch
from mkdm.scoring.machine import multiplies_int8
from mkdm.scoring.memory import STATE_BYTES
from mkdm.scoring.separate_texts import PairBatch, TextBatch

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
        self.precision = precision
        self.token_budget, self.window = TOKEN_BUDGET, WINDOW
        threads = threads or len(os.sched_getaffinity(0))
        self.streams = streams or threads
        self._model = _compiled(xml, precision, threads, self.streams)
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


class OpenVinoReader(TextReader):
    """Runs the two IR files of a student with separate layers, as `OpenVinoBackend` runs one.

    States are held as the files take them: fp32 for fp32, else bf16, in half the memory.

    Args:
        xml: the IR file of pairs, beside which that of texts is; the rest as for `OpenVinoBackend`.
    """

    out_of_memory: tuple[type[Exception], ...] = ()

    def __init__(self, xml: Path, precision: str, threads: int | None = None, streams: int | None = None) -> None:
        self.precision = precision
        self.token_budget, self.window = TOKEN_BUDGET, WINDOW
        threads = threads or len(os.sched_getaffinity(0))
        self.streams = streams or threads
        self._models = [_compiled(one, precision, threads, self.streams) for one in (text_part(xml), xml)]
        self._text_inputs = [node.get_any_name() for node in self._models[0].inputs]
        self._width = int(self._models[0].outputs[0].get_partial_shape()[2].get_length())
        self._kind: Any = np.float32 if precision == "fp32" else np.uint16
        self.state_tokens = STATE_BYTES // (self._width * np.dtype(self._kind).itemsize)
        self._local = threading.local()
        one = np.ones((1, 2), dtype=np.int64)  # the first of all inferences runs alone, as in `OpenVinoBackend`
        states = self.new_states(2)
        self.read(TextBatch(one, one, one, np.zeros_like(one)), states, np.arange(2))
        self.score_pairs(states, PairBatch(one, one))

    def new_states(self, tokens: int) -> NDArray[Any]:
        """See `TextReader`."""
        return np.zeros((tokens, self._width), dtype=self._kind)

    def read(self, batch: TextBatch, states: NDArray[Any], rows: NDArray[np.int64]) -> None:
        """See `TextReader`."""
        found = self._infer(0, [getattr(batch, name) for name in self._text_inputs])
        found = found[batch.attention_mask.astype(bool)]
        states[rows] = found if self._kind == np.float32 else _bf16(found)

    def score_pairs(self, states: NDArray[Any], batch: PairBatch) -> NDArray[np.float32]:
        """See `TextReader`."""
        gathered = states[batch.index]
        if self._kind == np.float32:
            return self._infer(1, [gathered, batch.attention_mask]).copy()
        tensor = openvino.Tensor(gathered, openvino.Shape(gathered.shape), openvino.Type.bf16)
        return self._infer(1, [tensor, batch.attention_mask]).copy()

    def _infer(self, model: int, inputs: list[Any]) -> NDArray[np.float32]:
        """What a model says; valid until this thread asks it again."""
        requests = getattr(self._local, "requests", None)
        if requests is None:
            requests = self._local.requests = [one.create_infer_request() for one in self._models]
        result: NDArray[np.float32] = requests[model].infer(inputs, share_inputs=True)[0]
        return result


def _bf16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The bits of float32 values, rounded to bf16."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    rounded[np.isnan(values)] = 0x7FC0
    return rounded


def ir_backend(
    xml: Path, precision: str, separate: bool, threads: int | None = None, streams: int | None = None
) -> OpenVinoBackend | OpenVinoReader:
    """What runs an IR file of a model, or with separate layers both.

    Raises:
        ConfigError: bf16 on a CPU without it.
        ModelError: OpenVINO cannot read or compile a file.
    """
    return (OpenVinoReader if separate else OpenVinoBackend)(xml, precision, threads, streams)


def _compiled(xml: Path, precision: str, threads: int, streams: int) -> openvino.CompiledModel:
    has_bf16 = "bf16" in machine_precisions()
    if precision == "bf16" and not has_bf16:
        raise ConfigError("this CPU has no bf16: use --precision auto, int8 or fp32")
    core = openvino.Core()
    settings = {
        "INFERENCE_PRECISION_HINT": _HINTS.get(precision, "bf16" if has_bf16 else "f32"),
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": streams,
        "ENABLE_CPU_PINNING": False,  # or all executors of a machine would sit on its first cores
    }
    try:
        model = core.read_model(xml)
        if settings["INFERENCE_PRECISION_HINT"] == "bf16":
            keep_gates_apart(model)
        return core.compile_model(model, "CPU", settings)
    except RuntimeError as error:
        raise ModelError(f"OpenVINO cannot run {xml}: {' '.join(str(error).split())[-200:]}") from error


def keep_gates_apart(model: openvino.Model) -> int:
    """Keep gated feed-forward layers, as GTE and Qwen3 have them, in parts, at no cost; returns how many there are.

    With AMX, OpenVINO (2026.4.1) makes one node of such a layer in bf16, whose threads go in pairs: a stream of one
    thread ends the process by a division by zero. A bound that no value passes, before its last product, prevents that.
    """
    bound, number = 2.0**127, 0
    for product in model.get_ops():
        if product.get_type_name() != "MatMul":
            continue
        gated = product.input_value(0)
        if gated.get_node().get_type_name() == "Multiply" and any(
            factor.get_node().get_type_name() in ("Gelu", "Swish") for factor in gated.get_node().input_values()
        ):
            product.input(0).replace_source_output(opset13.clamp(gated, -bound, bound).output(0))
            number += 1
    return number


def machine_precisions() -> tuple[str, ...]:
    """The precisions of IR files that this CPU runs, fastest first.

    int8 is the last where no instruction multiplies it: with AVX2 alone it is no quicker than fp32, and less exact.
    """
    has = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    there = [name for name in BY_SPEED if name.upper() in has]
    if multiplies_int8():
        return tuple(there)
    return tuple(sorted(there, key=lambda name: name == "int8"))


def load(
    folder: str | Path, precision: str, threads: int | None, streams: int | None, prompting: Prompting = PLAIN
) -> LoadedBackend:
    """Load an exported model; see `load_backend`."""
    check_fitness(folder, prompting)
    export = read_export(folder)
    chosen = None if export is None else export.choose(precision, machine_precisions())
    if export is None or chosen is None:
        raise ModelError(missing(folder, export, precision))
    separation = read_separation(folder)
    xml = verify(folder, export.exported[chosen])
    backend = ir_backend(xml, chosen, separation is not None, threads, streams)
    length = min(export.max_length, saved_length(folder) or export.max_length)
    version, wording = prompted_version(export.model_version, folder, prompting), read_wording(folder, prompting)
    return LoadedBackend(backend, load_tokenizer(folder), length, version, wording, separation, read_lexical(folder))
