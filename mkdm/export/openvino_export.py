"""Turns a student or teacher into OpenVINO IR files beside its safetensors, each judged by the quality gate."""

import logging
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mkdm.errors import ModelError
from mkdm.export.export_run import ExportSettings, Format, Pairs, export_files
from mkdm.export.graphs import Graph
from mkdm.export.quality_gate import ValidationPairs
from mkdm.model import IR_FOLDER, IR_PRECISIONS, Export, file_hash
from mkdm.quiet import quiet_openvino
from mkdm.scoring import Backend, LoadedBackend, TextReader


def export_model(
    folder: str | Path,
    calibration: Pairs,
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
    return export_files(OPENVINO, folder, calibration, validation, settings or ExportSettings(), about, say)


def _runnable() -> Sequence[str]:
    from mkdm.scoring import machine_precisions

    return machine_precisions()


def _convert(
    loaded: LoadedBackend,
    graphs: list[Graph],
    precision: str,
    calibration: Pairs,
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


def _backend(part: Path, precision: str, separate: bool) -> Backend | TextReader:
    from mkdm.scoring import ir_backend

    return ir_backend(part / f"{precision}.xml", precision, separate)


OPENVINO = Format(
    folder=IR_FOLDER,
    precisions=IR_PRECISIONS,
    names=tuple(f"{one}{end}" for one in IR_PRECISIONS for end in (".xml", ".bin", "-text.xml", "-text.bin")),
    tools=("openvino", "nncf", "torch", "transformers"),
    runnable=_runnable,
    check=lambda loaded: None,
    convert=_convert,
    backend=_backend,
    finish=lambda loaded, part: (),
)
