"""Makes what the sides of `mkdm benchmark` run: `python -m mkdm.benchmark.setup --model … --output …`.

Prints one line of JSON: the student's shape and what a pair costs in a plain model.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from mkdm.benchmark.ctranslate2_peer import convert_ctranslate2
from mkdm.benchmark.flops import lean_cost, pair_gflop
from mkdm.benchmark.openvino_peer import CALIBRATION
from mkdm.benchmark.peers import export_onnx
from mkdm.benchmark.plain_student import BATCH_SIZE, save_plain
from mkdm.benchmark.widen import random_student, widen
from mkdm.columns import PAIR_KEY, PASSAGE, QUERY, QUERY_ID, SCORE
from mkdm.config import parse_config, run_command
from mkdm.errors import InputError, ModelError
from mkdm.model import MkdmModel, PairModel, load_checkpoint, save_checkpoint
from mkdm.scoring import Block, EncodedPairs, PairEncoder, SeparatePairEncoder, pair_encoder, to_tensors

CALIBRATION_PAIRS = 300
"""Pairs that int8 ranges of the student are taken from, as in `mkdm export-model`."""


@dataclass(frozen=True)
class SetupConfig:
    """Make the models and reference scores that `mkdm benchmark` compares."""

    model: str
    """Folder of the student."""
    pairs: str
    """Parquet file with query_id, passage_id, query, passage."""
    peer_pairs: str
    """Parquet file with those of them that slow peers score."""
    output: str
    """Folder to write to: student/, plain/, student_K/ and plain_K/ of K layers, reference.parquet."""
    widen: int = 1
    """Times the student's hidden size."""
    onnx: tuple[str, ...] = ()
    """Precisions to export plain/ to ONNX in."""
    ctranslate2: tuple[str, ...] = ()
    """Precisions to convert plain/ for CTranslate2 in."""
    openvino: tuple[str, ...] = ()
    """Precisions to export the students for OpenVINO in."""
    layers: tuple[int, ...] = ()
    """Numbers of layers to make students of random weights with."""


def prepare(config: SetupConfig) -> dict[str, Any]:
    """Write everything under the output folder.

    Returns:
        hidden_size, num_layers, separate_layers, max_length; mean_tokens of a pair; text_h2 and pair_h2, what the lean
        encoder does for a token; pair_gflop and peer_pair_gflop, what a pair of each file costs in a plain encoder
        (`mkdm.benchmark.flops`). Peers know no separate layers: theirs are the same weights, read by pairs.

    Raises:
        ModelError: the folder does not load, or holds no student of ours with a BERT encoder.
        InputError: a pair cannot be scored.
    """
    output, pairs = Path(config.output), pq.read_table(config.pairs)
    loaded, tokenizer, _ = load_checkpoint(config.model)
    student = loaded.model
    if not isinstance(student, MkdmModel):
        raise ModelError(f"{config.model} is no student of ours: `mkdm benchmark` measures MKDM students")
    encoder = pair_encoder(tokenizer, loaded.max_length, separation=loaded.separation)
    encoded = encoder.encode(pairs[QUERY].to_pylist(), pairs[PASSAGE].to_pylist())
    for row, error in encoded.errors.items():
        raise InputError(f"row {row} of the pairs cannot be scored: {error.message} ({error.code}); leave it out")
    as_it_is = student.take_lexical() is None  # which no peer has: all sides leave it out
    student = widen(student, config.widen) if config.widen > 1 else student
    folders = {"student": student}
    for layers in config.layers:
        folders[f"student_{layers}"] = random_student(student, layers)
    for name, one in folders.items():
        save_plain(one, tokenizer, output / name.replace("student", "plain"))
        if one is loaded.model and as_it_is:
            shutil.copytree(config.model, output / name)  # as it is, whatever its weights are stored as
        else:
            save_checkpoint(one, tokenizer, output / name)
        if config.openvino and not (output / name / "openvino").exists():  # copied with the model
            # random weights have no ranges worth finding; real ones want all kinds of pairs
            few = min(len(pairs), CALIBRATION_PAIRS if one is student else CALIBRATION_PAIRS // 10)
            spread = pairs.take([row * len(pairs) // few for row in range(few)])
            export_openvino(output / name, config.openvino, spread, encoder)
        if config.onnx:
            export_onnx(str(output / name.replace("student", "plain")), config.onnx)
        if config.ctranslate2:
            convert_ctranslate2(str(output / name.replace("student", "plain")), config.ctranslate2)
    texts_to_calibrate(pairs, output / CALIBRATION)
    scores = reference(PairModel(student, loaded.max_length), encoder, encoded)
    pq.write_table(pairs.select(PAIR_KEY).append_column(SCORE, pa.array(scores)), output / "reference.parquet")
    shape = student.config.encoder_config
    peers = pq.read_table(config.peer_pairs)
    peer_lengths = encoder.encode(peers[QUERY].to_pylist(), peers[PASSAGE].to_pylist()).lengths
    separate = student.config.separate_layers
    texts = text_lengths(encoder, pairs[QUERY].to_pylist(), pairs[PASSAGE].to_pylist())
    return {
        "hidden_size": shape.hidden_size,
        "num_layers": shape.num_hidden_layers,
        "max_length": loaded.max_length,
        "mean_tokens": float(encoded.lengths.mean()),
        "separate_layers": separate,
        **lean_cost(shape.num_hidden_layers, separate),
        "pair_gflop": pair_gflop(shape, encoded.lengths, separate, texts),
        "peer_pair_gflop": pair_gflop(shape, peer_lengths),
    }


def texts_to_calibrate(pairs: pa.Table, folder: Path) -> None:
    """Write pairs spread over all as texts, in the column `text`: sentence-transformers calibrates its int8 on them."""
    few = min(len(pairs), CALIBRATION_PAIRS)
    some = pairs.take([row * len(pairs) // few for row in range(few)])
    folder.mkdir(parents=True)
    both = zip(some[QUERY].to_pylist(), some[PASSAGE].to_pylist(), strict=True)
    pq.write_table(pa.table({"text": [f"{query} {passage}" for query, passage in both]}), folder / "texts.parquet")


def text_lengths(encoder: PairEncoder, queries: list[str], passages: list[str]) -> NDArray[np.int64] | None:
    """int64[texts], tokens of each distinct text of some pairs, for a student with separate layers."""
    if not isinstance(encoder, SeparatePairEncoder):
        return None
    block = Block.of_pairs(queries, passages)
    return encoder.texts(encoder.encode_block(block), block.places(), np.arange(len(block))).lengths


@torch.inference_mode()
def reference(model: PairModel, encoder: PairEncoder, pairs: EncodedPairs) -> NDArray[np.float32]:
    """Scores of n pairs, float32[n], as plain torch computes them in fp32: every position of every layer."""
    scores = np.zeros(len(pairs.lengths), dtype=np.float32)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = model.to(device).eval()
    order = np.argsort(pairs.lengths)
    for start in range(0, len(order), BATCH_SIZE):
        rows = order[start : start + BATCH_SIZE]
        scores[rows] = model(**to_tensors(encoder.batch(pairs, rows), device))[:, 0].cpu().numpy()
    return scores


def export_openvino(folder: Path, precisions: Sequence[str], pairs: pa.Table, encoder: PairEncoder) -> None:
    """Write a student's OpenVINO files beside its weights, calibrated on the pairs.

    `mkdm export-model` judges its files by golden labels. Here the half of the pairs that the student itself scores
    highest stands for them, so that `auto` takes what keeps the student's order; a precision that does not is kept
    too, since the benchmark tells its drift.
    """
    from mkdm.export import ExportSettings, ValidationPairs, export_model

    texts = pairs[QUERY].to_pylist(), pairs[PASSAGE].to_pylist()
    scores = reference(load_checkpoint(folder)[0], encoder, encoder.encode(*texts))
    upper_half = (scores > np.median(scores)).astype(np.int64)
    validation = ValidationPairs(pairs[QUERY_ID].to_pylist(), *texts, upper_half)
    export_model(folder, texts, validation, ExportSettings(precisions=tuple(precisions), force=True))


def main(argv: Sequence[str] | None = None) -> None:
    """Make and print."""
    (config,) = parse_config("python -m mkdm.benchmark.setup", argv, SetupConfig)
    print(json.dumps(prepare(config)))


if __name__ == "__main__":
    run_command(main)
