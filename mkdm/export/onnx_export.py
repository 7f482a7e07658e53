"""Turns a student or reranker into ONNX files with its score, and a tokenizer.json beside them, through the gate."""

import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor, nn

from mkdm import __version__
from mkdm.errors import ModelError
from mkdm.export.export_run import ExportSettings, Format, Pairs, export_files
from mkdm.export.graphs import Graph
from mkdm.export.quality_gate import ValidationPairs
from mkdm.model import Export, Lexical, LexicalModule, file_hash
from mkdm.scoring import Backend, Batch, LoadedBackend

ONNX_FOLDER = "onnx"
ONNX_PRECISIONS = ("fp32", "int8")
TOKENIZER = "tokenizer.json"
OUTPUTS = ("score", "logit")
_ENDING = ".onnx"


def export_onnx(
    folder: str | Path,
    calibration: Pairs,
    validation: ValidationPairs,
    settings: ExportSettings | None = None,
    about: dict[str, str] | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Export:
    """Write fp32.onnx, int8.onnx, tokenizer.json and the record of the gate to `<folder>/onnx`.

    A file takes int64[B, L] `input_ids`, `attention_mask` and, where the model has them, `token_type_ids`, and gives
    float32[B] `score`, output O (6) of a student, and its `logit`. The graph is that of the lean encoder. int8 is ONNX
    Runtime's dynamic quantisation, by channel: it needs no calibration, so those pairs are only checked. The metadata
    of a file tell model_version, precision, max_length and engine_version. tokenizer.json cuts the passage alone at
    max_length, and pads: `Tokenizer.from_file(…).encode_batch([(query, passage), …])` gives the inputs.

    Args:
        folder: of the model; the rest as for `export_model`.

    Returns:
        The record; see `export_files`.

    Raises:
        ModelError: it has separate layers, or words of its own around the texts, neither of which one file and a
            tokenizer.json can hold; and as for `export_files`.
        InputError: as for `export_files`.
    """
    settings = settings or ExportSettings(ONNX_PRECISIONS)
    return export_files(ONNX, folder, calibration, validation, settings, about, say)


class OnnxBackend:
    """Runs an ONNX file on all cores, for the gate; see `mkdm.scoring.Backend`.

    Args:
        path: of the file.
        precision: which it was made for.

    Raises:
        ModelError: ONNX Runtime cannot load the file.
    """

    token_budget, window, streams = 2048, 4096, 1
    out_of_memory: tuple[type[Exception], ...] = ()

    def __init__(self, path: Path, precision: str) -> None:
        import onnxruntime

        self.precision = precision
        try:
            self._session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        except Exception as error:  # whatever ONNX Runtime raises for a graph that it does not know
            raise ModelError(f"ONNX Runtime cannot run {path}: {' '.join(str(error).split())[-200:]}") from error
        self._inputs = [node.name for node in self._session.get_inputs()]

    def score(self, batch: Batch) -> NDArray[np.float32]:
        """int64[B, L] inputs -> float32[B, 2], score and logit."""
        found = self._session.run(list(OUTPUTS), {name: getattr(batch, name) for name in self._inputs})
        return np.stack(found, axis=1)


class _Named(nn.Module):
    """A graph's module, the student's lexical part after it, with its two columns as outputs of their own."""

    def __init__(self, graph: Graph, lexical: Lexical | None) -> None:
        super().__init__()
        self.module, self.names = graph.module, list(graph.example)
        self.lexical = None if lexical is None else LexicalModule.of(lexical)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        found = self.module(*inputs)
        if self.lexical is None:
            return found[:, 0], found[:, 1]
        named = dict(zip(self.names, inputs, strict=True))
        logits = found[:, 1] + self.lexical(named["input_ids"], named["attention_mask"])
        return torch.sigmoid(logits), logits


def _check(loaded: LoadedBackend) -> None:
    if loaded.separation is not None:
        raise ModelError(
            "a student with separate layers is two graphs, of texts and of pairs, which one ONNX file does not hold: "
            "export it with --format openvino"
        )
    if loaded.wording is not None:
        raise ModelError(
            "this model is asked by a prompt or template, which tokenizer.json does not hold: export it with --format "
            "openvino"
        )


def _convert(
    loaded: LoadedBackend, graphs: list[Graph], precision: str, calibration: Pairs, seed: int, folder: Path
) -> dict[str, str]:
    import onnx

    (graph,) = graphs
    name = graph.stem(precision) + _ENDING
    with TemporaryDirectory(dir=folder) as aside:
        path = Path(aside, "fp32.onnx")
        _trace(graph, loaded.lexical, path)
        if precision == "int8":
            path = _quantised(path)
        model = onnx.load(path)
    notes = {
        "model_version": loaded.model_version,
        "precision": precision,
        "max_length": str(loaded.max_length),
        "engine_version": __version__,
        "score": "output O (6) of a student, in [0, 1]; of a reranker, the probability that the passage is relevant",
    }
    onnx.helper.set_model_props(model, notes)
    onnx.save(model, folder / name)
    return {name: file_hash(folder / name)}


def _trace(graph: Graph, lexical: Lexical | None, path: Path) -> None:
    """Write the graph in fp32. The older of torch's exporters needs no package besides onnx."""
    axes: dict[str, dict[int, str]] = {name: {0: "batch", 1: "length"} for name in graph.example}
    axes |= {name: {0: "batch"} for name in OUTPUTS}
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of tracing: the gate tells whether a shape was taken for a constant
            torch.onnx.export(
                _Named(graph, lexical).eval(),
                tuple(graph.example.values()),
                str(path),
                input_names=list(graph.example),
                output_names=list(OUTPUTS),
                dynamic_axes=axes,
                dynamo=False,
            )
    except OSError:
        raise
    except Exception as error:  # whatever tracing or conversion raise, such as a file above protobuf's 2 GB
        raise ModelError(
            f"ONNX cannot hold this model: {' '.join(str(error).split())[-200:]}; export it with --format openvino"
        ) from error


def _quantised(plain: Path) -> Path:
    """A file beside it with int8 weights, by channel, and activations rounded batch by batch, in matrix products.

    The last layer's products by head, whose weights are no matrix, stay as they are, and so do the headers.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    path, graph = plain.with_name("int8.onnx"), onnx.load(plain).graph
    matrices = {one.name for one in graph.initializer if len(one.dims) == 2}
    others = [node.name for node in graph.node if node.op_type == "MatMul" and matrices.isdisjoint(node.input)]
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)  # it advises preprocessing each time
    try:
        quantize_dynamic(
            plain,
            path,
            weight_type=QuantType.QInt8,
            per_channel=True,
            op_types_to_quantize=["MatMul"],
            nodes_to_exclude=others,
        )
    finally:
        logger.setLevel(level)
    return path


def _finish(loaded: LoadedBackend, part: Path) -> tuple[str, ...]:
    """Write tokenizer.json."""
    encoder: Any = loaded.tokenizer
    tokenizer = Tokenizer.from_str(encoder.backend_tokenizer.to_str())
    tokenizer.enable_truncation(loaded.max_length, strategy="only_second")
    pad = int(encoder.pad_token_id or 0)
    tokenizer.enable_padding(pad_id=pad, pad_token=str(encoder.pad_token or tokenizer.id_to_token(pad)))
    tokenizer.save(str(part / TOKENIZER))
    return (TOKENIZER,)


ONNX = Format(
    folder=ONNX_FOLDER,
    precisions=ONNX_PRECISIONS,
    names=(*(f"{one}{_ENDING}" for one in ONNX_PRECISIONS), TOKENIZER),
    tools=("onnx", "onnxruntime", "torch", "transformers"),
    runnable=lambda: ONNX_PRECISIONS,
    check=_check,
    convert=_convert,
    backend=lambda part, precision, separate: _backend(part, precision),
    finish=_finish,
    whole=True,
)


def _backend(part: Path, precision: str) -> Backend:
    return OnnxBackend(part / f"{precision}{_ENDING}", precision)
