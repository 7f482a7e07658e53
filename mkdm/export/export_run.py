"""Writes the files of an export beside a model's safetensors, of any format, each judged by the quality gate."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mkdm.errors import InputError, ModelError
from mkdm.export.batch_shapes import Shape, batches_of_all_shapes, in_all_shapes
from mkdm.export.export_folder import carry_over, foreign_names, replacing
from mkdm.export.graphs import Graph, graphs_of
from mkdm.export.quality_gate import ValidationPairs, failure, quality
from mkdm.model import (
    FAMILIES,
    IR_PRECISIONS,
    Export,
    ExportedModel,
    folder_of,
    load_checkpoint,
    model_version,
    read_json,
    read_wording,
    relevant_is_first,
)
from mkdm.scoring import (
    Backend,
    EncodedPairs,
    LoadedBackend,
    PairEncoder,
    Scorer,
    TextReader,
    lexical_shifts,
    moved,
    score_at_once,
    torch_loaded,
)

MAX_AUC_LOSS = 0.002
Pairs = tuple[Sequence[str], Sequence[str]]
"""Queries and passages of pairs."""


@dataclass(frozen=True)
class ExportSettings:
    """How to export.

    Attributes:
        precisions: of those that the format has.
        seed: of quantisation.
        max_auc_loss: what AUC may fall by at most, 0.002 being 0.2 points.
        force: keep what fails the gate; `auto` never takes it, a run that names its precision does.
    """

    precisions: tuple[str, ...] = IR_PRECISIONS
    seed: int = 0
    max_auc_loss: float = MAX_AUC_LOSS
    force: bool = False


@dataclass(frozen=True)
class Format:
    """A kind of files that a model is exported to.

    Attributes:
        folder: where they lie in the model's folder.
        precisions: that there are, fp32 first, since the tables are rounded for the others.
        names: of all files that it may write there.
        tools: packages whose versions are part of the record.
        runnable: the precisions that this CPU can judge.
        check: refuses a model that the format cannot hold.
        convert: writes the files of one precision of a model, its graphs, into a folder; their hashes by name.
        backend: what runs the files of a precision that lie in a folder; whether the model has separate layers.
        finish: writes what else belongs beside them, after all of them; its names.
        whole: whether a file has a student's lexical part in it; else who runs the file adds it.
    """

    folder: str
    precisions: tuple[str, ...]
    names: tuple[str, ...]
    tools: tuple[str, ...]
    runnable: Callable[[], Sequence[str]]
    check: Callable[[LoadedBackend], None]
    convert: Callable[[LoadedBackend, list[Graph], str, Pairs, int, Path], dict[str, str]]
    backend: Callable[[Path, str, bool], Backend | TextReader]
    finish: Callable[[LoadedBackend, Path], tuple[str, ...]]
    whole: bool = False


def export_files(
    kind: Format,
    folder: str | Path,
    calibration: Pairs,
    validation: ValidationPairs,
    settings: ExportSettings,
    about: dict[str, str] | None,
    say: Callable[[str], None],
) -> Export:
    """Write files of a format, and the record of the gate, into their folder beside a model.

    Args:
        folder: of the model.
        calibration: real pairs.
        validation: pairs with golden labels, for the gate.
        about: what to note in the record.
        say: told what is being done.

    Returns:
        The record. A precision that failed the gate is in its `refused`, unless forced.

    Raises:
        ModelError: the model does not load or convert, is a T5 of which int8 alone is wanted, its folder cannot be
            written, or a file of another tool there has a name that an export needs.
        InputError: no pair is left to calibrate on, or none or one kind of golden label to judge by.
    """
    folder = folder_of(folder)
    foreign = foreign_names(folder, kind.folder, kind.names)
    model, tokenizer, _ = load_checkpoint(folder)
    made_of, wording = model_version(folder), read_wording(folder)
    loaded = torch_loaded(model, tokenizer, made_of, "fp32", wording=wording)
    kind.check(loaded)
    precisions = _quantisable(folder, settings.precisions, say)
    encoder = loaded.encoder()
    calibration, validation = _usable(encoder, calibration, validation, say)
    tools = {name: version(name) for name in kind.tools}
    exported, refused = {}, {}
    with replacing(Path(folder, kind.folder), foreign) as part:
        say("scoring the validation pairs with torch in fp32")
        reference, rate = _scores(Scorer(loaded), validation)
        batches = batches_of_all_shapes(encoder, validation)
        shapes = [(one, _at_once(loaded, encoder, one, kind.whole)) for one in batches]
        figures = quality(reference, reference, validation)
        at_hand = {name: figures[name] for name in ("accuracy", "auc")} | {"pairs_per_s": rate}
        for precision in _runnable(kind, precisions, say):
            say(f"converting to {precision}")
            graphs = graphs_of(model.to("cpu"), encoder)
            files = kind.convert(loaded, graphs, precision, calibration, settings.seed, part)
            judged = replace(loaded, backend=kind.backend(part, precision, loaded.separation is not None))
            judged = replace(judged, lexical=None) if kind.whole else judged
            found = _figures(judged, reference, validation, shapes)
            found["megabytes"] = sum((part / name).stat().st_size for name in files) / 1e6
            fault = failure(precision, found, settings.max_auc_loss)
            if fault is None or settings.force:
                exported[precision] = ExportedModel(files, fault is None, found)
            else:
                refused[precision] = found
                for name in files:
                    (part / name).unlink()
        kept = carry_over(folder, kind.folder, part, made_of, tools, {*exported, *refused})
        export = Export(
            model_version=made_of,
            max_length=model.max_length,
            tools=tools,
            about=about or {},
            reference=at_hand,
            exported=kept | exported,
            refused=refused,
            first_label=relevant_is_first(folder),
            beside=kind.finish(loaded, part),
        )
        export.write(part)
    return export


def _at_once(loaded: LoadedBackend, encoder: PairEncoder, pairs: EncodedPairs, whole: bool) -> NDArray[np.float32]:
    """float32[n, 2], what a file of the model should say of a few pairs."""
    outputs = score_at_once(loaded.backend, encoder, pairs)
    return moved(outputs, lexical_shifts(loaded.lexical, pairs)) if whole and loaded.lexical is not None else outputs


def _usable(
    encoder: PairEncoder,
    calibration: Pairs,
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


def _quantisable(folder: Path, precisions: Sequence[str], say: Callable[[str], None]) -> Sequence[str]:
    """The precisions that a model of that family can have: nncf's int8 file of T5 takes batches of one size alone."""
    family = FAMILIES.get(str(read_json(folder / "config.json").get("model_type")))
    if family is None or family.kind != "encoder-decoder" or "int8" not in precisions:
        return precisions
    if set(precisions) == {"int8"}:
        raise ModelError(f"{folder} is a {family.title}, which has no int8 file: take --precisions fp32,bf16")
    say(f"int8 left out: a {family.title} has no int8 file")
    return [name for name in precisions if name != "int8"]


def _runnable(kind: Format, precisions: Sequence[str], say: Callable[[str], None]) -> list[str]:
    """The precisions that this CPU can judge, in the format's order."""
    here = kind.runnable()
    for name in precisions:
        if name not in here:
            say(f"{name} left out: this CPU does not run it, so that it cannot be judged here")
    return [name for name in kind.precisions if name in precisions and name in here]


def _figures(
    judged: LoadedBackend, reference: NDArray[np.float32], validation: ValidationPairs, shapes: Sequence[Shape]
) -> dict[str, float]:
    scores, rate = _scores(Scorer(judged), validation)
    figures = quality(scores, reference, validation)
    return figures | in_all_shapes(judged, shapes, figures) | {"pairs_per_s": rate}


def _scores(scorer: Scorer, validation: ValidationPairs) -> tuple[NDArray[np.float32], float]:
    """Scores of the validation pairs, NaN where the model gives none, and pairs per second."""
    started = time.perf_counter()
    scores = scorer.score_window(validation.queries, validation.passages).scores
    return scores, len(scores) / (time.perf_counter() - started)
