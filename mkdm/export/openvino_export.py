"""Turns a student or teacher into OpenVINO IR files beside its safetensors, each judged by the quality gate."""

import logging
import random
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import torch
from numpy.typing import NDArray

from mkdm.errors import InputError, ModelError
from mkdm.export.batch_shapes import Shape, batches_of_all_shapes, in_all_shapes
from mkdm.export.graphs import Graph, graphs_of
from mkdm.export.quality_gate import ValidationPairs, failure, quality
from mkdm.model import (
    IR_FOLDER,
    IR_PRECISIONS,
    IR_RECORD,
    Export,
    ExportedModel,
    file_hash,
    folder_of,
    load_checkpoint,
    model_version,
    own_files,
    read_export,
    read_wording,
    relevant_is_first,
    verify,
)
from mkdm.quiet import quiet_openvino
from mkdm.scoring import LoadedBackend, PairEncoder, Scorer, score_at_once, torch_loaded

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

    precisions: tuple[str, ...] = IR_PRECISIONS
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
    """Write IR files and the record of the gate to `<folder>/openvino`.

    The graph is that of the lean encoder; with separate layers there are two, of texts and of pairs. int8 is nncf's
    post-training quantisation of weights and activations, calibrated on real pairs; the tables of the lean encoder are
    kept as bf16 in the files of bf16 and int8. The gate also scores batches of all shapes, padded and not, since a file
    may be right on some and wrong on others. Files of other precisions stay if they were made of the same weights by
    the same tools. Pairs that the model cannot score are left out, and so is a precision that this CPU does not run.
    Whatever another tool put into that folder stays.

    Args:
        folder: of the model.
        calibration: queries and passages of real pairs.
        validation: pairs with golden labels, for the gate.
        about: what to note in the record, such as which tables the pairs came from.
        say: told what is being done.

    Returns:
        The record. A precision that failed the gate is in its `refused`, unless forced.

    Raises:
        ModelError: the model does not load, OpenVINO cannot convert it, its folder cannot be written, or a file of
            another tool there has a name that an export needs.
        InputError: no pair is left to calibrate on, or none or one kind of golden label to judge by.
    """
    settings = settings or ExportSettings()
    folder = folder_of(folder)
    foreign = _foreign(folder)
    model, tokenizer, _ = load_checkpoint(folder)
    version, wording = model_version(folder), read_wording(folder)
    loaded = torch_loaded(model, tokenizer, version, "fp32", wording=wording)
    encoder = loaded.encoder()
    calibration, validation = _usable(encoder, calibration, validation, say)
    exported, refused = {}, {}
    with _replacing(Path(folder, IR_FOLDER), foreign) as part:
        say("scoring the validation pairs with torch in fp32")
        reference, rate = _scores(Scorer(loaded), validation)
        batches = batches_of_all_shapes(encoder, validation)
        shapes = [(one, score_at_once(loaded.backend, encoder, one)) for one in batches]
        figures = quality(reference, reference, validation)
        at_hand = {name: figures[name] for name in ("accuracy", "auc")} | {"pairs_per_s": rate}
        for precision in _runnable(settings.precisions, say):
            say(f"converting to {precision}")
            files = _convert(graphs_of(model.to("cpu"), encoder), precision, calibration, settings.seed, part)
            judged = _judge(part, files, precision, loaded, reference, validation, shapes)
            fault = failure(precision, judged, settings.max_auc_loss)
            if fault is None or settings.force:
                exported[precision] = ExportedModel(files, fault is None, judged)
            else:
                refused[precision] = judged
                for name in files:
                    (part / name).unlink()
        kept = _carry_over(folder, part, version, {*exported, *refused})
        first = relevant_is_first(folder)
        export = Export(version, model.max_length, _tools(), about or {}, at_hand, kept | exported, refused, first)
        export.write(part)
    return export


def _usable(
    encoder: PairEncoder,
    calibration: tuple[Sequence[str], Sequence[str]],
    validation: ValidationPairs,
    say: Callable[[str], None],
) -> tuple[tuple[list[str], list[str]], ValidationPairs]:
    """The pairs that can be encoded."""
    kept = []
    for purpose, queries, passages in (
        ("calibration", *calibration),
        ("validation", validation.queries, validation.passages),
    ):
        pairs = encoder.encode(queries, passages)
        if pairs.errors:
            _, error = min(pairs.errors.items())
            say(f"{len(pairs.errors)} of {len(queries)} {purpose} pairs left out, such as one where {error.message}")
        kept.append(np.flatnonzero(pairs.lengths > 0))
        if not len(kept[-1]):
            raise InputError(f"none of the {len(queries)} {purpose} pairs can be scored: give others")
    few, rows = kept
    queries, passages = calibration
    judges = ValidationPairs(
        [validation.query_ids[row] for row in rows],
        [validation.queries[row] for row in rows],
        [validation.passages[row] for row in rows],
        validation.golden_labels[rows],
    )
    return ([queries[row] for row in few], [passages[row] for row in few]), judges


def _runnable(precisions: Sequence[str], say: Callable[[str], None]) -> list[str]:
    """The precisions that this CPU can judge; fp32 comes first, since the tables are rounded for the others."""
    from mkdm.scoring import machine_precisions

    here = machine_precisions()
    for name in precisions:
        if name not in here:
            say(f"{name} left out: this CPU does not run it, so that it cannot be judged here")
    return [name for name in IR_PRECISIONS if name in precisions and name in here]


def _foreign(folder: str | Path) -> list[str]:
    """Names of what lies in the folder of IR files and was not made here.

    Raises:
        ModelError: one of them has a name that an export needs.
    """
    target = Path(folder, IR_FOLDER)
    if target.exists() and not target.is_dir():
        raise ModelError(f"{target} is no folder, and was not made by mkdm export-model: move it away")
    names = {path.name for path in target.iterdir()} - own_files(folder) if target.exists() else set()
    ours = [f"{precision}{end}" for precision in IR_PRECISIONS for end in (".xml", ".bin", "-text.xml", "-text.bin")]
    taken = names & {IR_RECORD, *ours}
    if taken:
        raise ModelError(
            f"{target / min(taken)} was not made by mkdm export-model, which would overwrite it: move it away"
        )
    return sorted(names)


@contextmanager
def _replacing(target: Path, keep: Sequence[str]) -> Iterator[Path]:
    """A new folder that takes the place of the target once it is complete; if not, the target stays as it was.

    Args:
        keep: names of files and folders in the target that the new folder gets as well.
    """
    part = target.with_name(f"{target.name}.{uuid4().hex}.part")
    old = part.with_suffix(".old")
    try:
        part.mkdir()
        yield part
        for name in keep:
            one = target / name
            if one.is_dir() and not one.is_symlink():
                shutil.copytree(one, part / name, symlinks=True)
            else:
                shutil.copy2(one, part / name, follow_symlinks=False)
        if target.exists():
            target.rename(old)
        try:
            part.rename(target)
        except OSError:
            if old.exists():
                old.rename(target)
            raise
        shutil.rmtree(old, ignore_errors=True)
    except (OSError, shutil.Error) as error:
        raise ModelError(f"cannot write {target}: {getattr(error, 'strerror', None) or error}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _carry_over(folder: str | Path, part: Path, version: str, made: set[str]) -> dict[str, ExportedModel]:
    """Take the files of precisions that were not made now over from an earlier export of the same weights."""
    try:
        earlier = read_export(folder)
        if earlier is None or (earlier.model_version, earlier.tools) != (version, _tools()):
            return {}
        kept = {name: one for name, one in earlier.exported.items() if name not in made}
        for one in kept.values():
            verify(folder, one)
            for name in one.sha256:
                shutil.copy2(Path(folder, IR_FOLDER, name), part / name)
    except ModelError:  # an export that cannot be used any more
        return {}
    return kept


def _convert(
    graphs: list[Graph],
    precision: str,
    calibration: tuple[Sequence[str], Sequence[str]],
    seed: int,
    folder: Path,
) -> dict[str, str]:
    """Write the IR files of one precision; the hashes of their .xml and .bin."""
    for graph in graphs:
        if precision != "fp32" and graph.lookup is not None:
            graph.lookup.round_tables()
    names = []
    with quiet_openvino():
        import openvino

        for graph in graphs:
            try:
                with torch.no_grad():
                    ir = openvino.convert_model(graph.module, example_input=tuple(graph.example.values()))
            except Exception as error:  # whatever tracing or conversion raise
                raise ModelError(
                    f"OpenVINO cannot convert this model: {' '.join(str(error).split())[-200:]}"
                ) from error
            for node, name in zip(ir.inputs, graph.example, strict=True):
                node.get_tensor().set_names({name})
            if precision == "int8":
                ir = _quantise(ir, graph.samples(calibration), seed)
            if precision != "fp32" and graph.states is not None:
                steps = openvino.preprocess.PrePostProcessor(ir)
                steps.input(graph.states).tensor().set_element_type(openvino.Type.bf16)
                ir = steps.build()
            stem = graph.stem(precision)
            openvino.save_model(ir, folder / f"{stem}.xml", compress_to_fp16=False)
            names += [f"{stem}.xml", f"{stem}.bin"]
    return {name: file_hash(folder / name) for name in names}


def _quantise(ir: Any, samples: list[dict[str, NDArray[Any]]], seed: int) -> Any:
    """int8 weights and activations of the matrix products; nncf's choices for transformers."""
    import nncf

    random.seed(seed)
    np.random.seed(seed)
    nncf.set_log_level(logging.ERROR)
    return nncf.quantize(
        ir,
        nncf.Dataset(samples),
        preset=nncf.QuantizationPreset.PERFORMANCE,
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=len(samples),
    )


def _judge(
    part: Path,
    files: dict[str, str],
    precision: str,
    loaded: LoadedBackend,
    reference: NDArray[np.float32],
    validation: ValidationPairs,
    shapes: Sequence[Shape],
) -> dict[str, float]:
    from mkdm.scoring import ir_backend

    backend = ir_backend(part / f"{precision}.xml", precision, loaded.separation is not None)
    judged = replace(loaded, backend=backend)
    scores, rate = _scores(Scorer(judged), validation)
    figures = quality(scores, reference, validation)
    megabytes = sum((part / name).stat().st_size for name in files) / 1e6
    return figures | in_all_shapes(judged, shapes, figures) | {"pairs_per_s": rate, "megabytes": megabytes}


def _scores(scorer: Scorer, validation: ValidationPairs) -> tuple[NDArray[np.float32], float]:
    """Scores of the validation pairs, NaN where the model gives none, and pairs per second."""
    started = time.perf_counter()
    scores = scorer.score_window(validation.queries, validation.passages).scores
    return scores, len(scores) / (time.perf_counter() - started)


def _tools() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("openvino", "nncf", "torch", "transformers")}
