"""Turns a student or teacher into OpenVINO IR files beside its safetensors, each judged by the quality gate."""

import io
import logging
import os
import random
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mkdm.backend import LoadedBackend
from mkdm.checkpoint import PairModel, load_checkpoint
from mkdm.encoding import EncodedPairs, PairEncoder
from mkdm.errors import InputError, ModelError
from mkdm.exported import FOLDER, Export, ExportedModel, file_hash
from mkdm.quality_gate import ValidationPairs, failure, quality
from mkdm.quiet import quiet_transformers
from mkdm.scorer import Scorer
from mkdm.torch_backend import TorchBackend, make_lean, to_tensors

PRECISIONS = ("fp32", "bf16", "int8")
MAX_AUC_LOSS = 0.002


@dataclass(frozen=True)
class ExportSettings:
    """How to export.

    Attributes:
        precisions: of fp32, bf16 and int8.
        seed: of quantisation.
        max_auc_loss: what AUC may fall by at most, 0.002 being 0.2 points.
        force: keep what fails the gate; `auto` never takes it, a run that names its precision does.
    """

    precisions: tuple[str, ...] = PRECISIONS
    seed: int = 0
    max_auc_loss: float = MAX_AUC_LOSS
    force: bool = False


def export_model(
    folder: str | Path,
    calibration: tuple[Sequence[str], Sequence[str]],
    validation: ValidationPairs,
    settings: ExportSettings | None = None,
    about: dict[str, str] | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Export:
    """Write `<folder>/openvino` with an IR file per precision and the record of the gate, in place of what was there.

    The graph is that of the lean encoder. int8 is nncf's post-training quantisation of weights and activations,
    calibrated on real pairs; the tables of the lean encoder are kept as bf16 in the files of bf16 and int8.

    Args:
        folder: of the model.
        calibration: queries and passages of real pairs.
        validation: pairs with golden labels, for the gate.
        about: what to note in the record, such as which tables the pairs came from.
        say: told what is being done.

    Returns:
        The record. A precision that failed the gate is in its `refused`, unless forced.

    Raises:
        ModelError: the model does not load, or OpenVINO cannot convert it.
        InputError: a pair cannot be scored.
    """
    settings = settings or ExportSettings()
    model, tokenizer, version = load_checkpoint(folder)
    encoder = PairEncoder(tokenizer, model.max_length)
    make_lean(model, encoder)
    say("scoring the validation pairs with torch in fp32")
    backend = TorchBackend(model, "fp32")
    reference, rate = _scores(Scorer(LoadedBackend(backend, tokenizer, model.max_length, version)), validation)
    figures = quality(reference, reference, validation)
    at_hand = {name: figures[name] for name in ("accuracy", "auc")} | {"pairs_per_s": rate}
    exported, refused = {}, {}
    target = Path(folder, FOLDER)
    part = target.with_name(f"{FOLDER}.{uuid4().hex}.part")
    part.mkdir()
    try:
        for precision in sorted(settings.precisions, key=PRECISIONS.index):  # fp32 first: then tables are rounded
            say(f"converting to {precision}")
            files = _convert(model.to("cpu"), encoder, precision, calibration, settings.seed, part)
            judged = _judge(part, files, precision, (tokenizer, model.max_length, version), reference, validation)
            fault = failure(precision, judged, settings.max_auc_loss)
            if fault is None or settings.force:
                exported[precision] = ExportedModel(files, fault is None, judged)
            else:
                refused[precision] = judged
                for name in files:
                    (part / name).unlink()
        export = Export(version, model.max_length, _tools(), about or {}, at_hand, exported, refused)
        export.write(part)
        shutil.rmtree(target, ignore_errors=True)
        part.rename(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return export


def _convert(
    model: PairModel,
    encoder: PairEncoder,
    precision: str,
    calibration: tuple[Sequence[str], Sequence[str]],
    seed: int,
    folder: Path,
) -> dict[str, str]:
    """Write the IR file of one precision; the hashes of its .xml and .bin."""
    if precision != "fp32" and getattr(model.encoder, "lookup", None) is not None:
        model.encoder.lookup.round_tables()  # type: ignore[operator,union-attr]
    pairs = encoder.encode(*calibration)
    if pairs.errors:
        row, error = min(pairs.errors.items())
        raise InputError(f"calibration pair {row} cannot be encoded: {error.message} ({error.code})")
    with _quiet():
        import openvino

        names, example = _example(encoder)
        try:
            with torch.no_grad():
                ir = openvino.convert_model(_Traced(model, names), example_input=example)
        except Exception as error:  # whatever tracing or conversion raise
            raise ModelError(f"OpenVINO cannot convert this model: {' '.join(str(error).split())[-200:]}") from error
        for node, name in zip(ir.inputs, names, strict=True):
            node.get_tensor().set_names({name})
        if precision == "int8":
            ir = _quantise(ir, encoder, pairs, names, seed)
        openvino.save_model(ir, folder / f"{precision}.xml", compress_to_fp16=False)
    return {name: file_hash(folder / name) for name in (f"{precision}.xml", f"{precision}.bin")}


class _Traced(nn.Module):
    """The model with its inputs in a fixed order, since a traced function has no keywords."""

    def __init__(self, model: PairModel, names: list[str]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *inputs: Tensor) -> Tensor:
        result: Tensor = self.model(**dict(zip(self.names, inputs, strict=True)))
        return result


def _example(encoder: PairEncoder) -> tuple[list[str], tuple[Tensor, ...]]:
    batch = encoder.batch(encoder.encode(["a", "a a"], ["a a a a", "a"]), np.arange(2))
    tensors = to_tensors(batch, torch.device("cpu"))
    return list(tensors), tuple(tensors.values())


def _quantise(ir: Any, encoder: PairEncoder, pairs: EncodedPairs, names: list[str], seed: int) -> Any:
    """int8 weights and activations of the matrix products; nncf's choices for transformers."""
    import nncf

    random.seed(seed)
    np.random.seed(seed)
    nncf.set_log_level(logging.ERROR)

    def inputs(row: int) -> dict[str, NDArray[np.int64]]:
        batch = encoder.batch(pairs, np.array([row]))
        return {name: getattr(batch, name) for name in names}

    rows = list(range(len(pairs.lengths)))
    return nncf.quantize(
        ir,
        nncf.Dataset(rows, inputs),
        preset=nncf.QuantizationPreset.PERFORMANCE,
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=len(rows),
    )


def _judge(
    part: Path,
    files: dict[str, str],
    precision: str,
    model: tuple[Any, int, str],
    reference: NDArray[np.float32],
    validation: ValidationPairs,
) -> dict[str, float]:
    from mkdm.openvino_backend import OpenVinoBackend

    backend = OpenVinoBackend(part / f"{precision}.xml", precision)
    scores, rate = _scores(Scorer(LoadedBackend(backend, *model)), validation)
    megabytes = sum((part / name).stat().st_size for name in files) / 1e6
    return quality(scores, reference, validation) | {"pairs_per_s": rate, "megabytes": megabytes}


def _scores(scorer: Scorer, validation: ValidationPairs) -> tuple[NDArray[np.float32], float]:
    """Scores of the validation pairs, and pairs per second."""
    started = time.perf_counter()
    scores = scorer.score(validation.queries, validation.passages)
    return scores, len(scores) / (time.perf_counter() - started)


def _tools() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("openvino", "nncf", "torch", "transformers")}


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars, no warnings of tracing, none of the telemetry that OpenVINO's tools send unless in a CI."""
    kept = {name: os.environ.get(name) for name in ("CI", "NNCF_CI")}
    os.environ.update(dict.fromkeys(kept, "true"))
    try:
        with redirect_stdout(io.StringIO()), warnings.catch_warnings(), quiet_transformers():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, value in kept.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
