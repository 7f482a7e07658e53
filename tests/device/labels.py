"""Soft labels of a set by one model, a file of the set at a time, and kept as small files.

    python tests/device/labels.py label --model DIR --set DIR --teacher ID --labels DIR
    python tests/device/labels.py keep --set DIR --labels DIR --output FILE.parquet
    python tests/device/labels.py use --set DIR --kept FILE.parquet --output DIR

`label` may be killed at any moment: the same command goes on with the files of the set that are missing. `keep` writes
what is complete as query_id, passage_id and for each teacher a logit, fp16 as two bytes, little-endian: Parquet's own
half floats are newer than the pyarrow that petastorm takes. Versions and fingerprint are in the file's metadata.
`use` makes the training set that has those labels, NaN where a pair has none.
"""

import argparse
import json
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from sets import KEY, KEYS

from mkdm.errors import InputError
from mkdm.experiments.sets import labelled_set
from mkdm.experiments.tasks import score_set
from mkdm.model import load_tokenizer, model_version
from mkdm.train import TrainingSet

WHAT = b"soft_labels"
_LEAST = 1e-7


def parts_folder(labels: Path, training_set: TrainingSet, teacher: str, version: str) -> Path:
    """Where the parts of a teacher's labels of a set are; it holds no other teacher's, nor those of another set."""
    return labels / f"{training_set.fingerprint[:12]}.{teacher}.{version}"


def label(
    model: str, set_folder: Path, teacher: str, labels: Path, seconds: float | None = None, at_once: int = 1
) -> bool:
    """Score what is missing, float32[rows of a file] in [0, 1] a part; returns whether all of it is there.

    Args:
        seconds: after which it stops between two loads of the model.
        at_once: files of the set that are scored by one load of the model.

    Raises:
        InputError: the set was encoded by another tokenizer than the model's.
    """
    training_set, began = TrainingSet.read(str(set_folder)), time.monotonic()
    training_set.check_tokenizer(load_tokenizer(model))
    folder = parts_folder(labels, training_set, teacher, model_version(model))
    folder.mkdir(parents=True, exist_ok=True)
    parts = {folder / f"{number:04d}.npy": file for number, file in enumerate(training_set.files)}
    missing = [part for part in parts if not part.exists()]
    for start in range(0, len(missing), at_once):
        if seconds is not None and time.monotonic() - began > seconds:
            return False
        before, group = os.times(), missing[start : start + at_once]
        files = [parts[part] for part in group]
        scores = score_set(Path(model), replace(training_set, files=files))
        ends = np.cumsum([file.rows for file in files])[:-1]
        for part, some in zip(group, np.split(scores, ends), strict=True):
            _write(part, lambda path, some=some: np.save(path, some))
        after = os.times()
        spent = after.user + after.system - before.user - before.system
        line = {"parts": [part.name for part in group], "rows": len(scores), "cpu_seconds": round(spent, 1)}
        with (folder / "log.jsonl").open("a") as log:
            log.write(json.dumps(line) + "\n")
    return True


def complete(set_folder: Path, labels: Path) -> dict[str, tuple[str, NDArray[np.float32]]]:
    """By teacher, its version and the labels of all rows of a set; teachers that are not done are left out."""
    training_set = TrainingSet.read(str(set_folder))
    found = {}
    for folder in sorted(labels.glob(f"{training_set.fingerprint[:12]}.*")):
        _, teacher, version = folder.name.split(".")
        parts = [folder / f"{number:04d}.npy" for number in range(len(training_set.files))]
        if all(part.exists() for part in parts):
            found[teacher] = version, np.concatenate([np.load(part) for part in parts])
    return found


def keep(set_folder: Path, labels: Path, output: Path, about: str = "") -> list[str]:
    """Write the labels that are complete, sorted by passage and query; returns the teachers.

    Teachers that the file has of the same pairs, and that the folder lacks, stay in it.
    """
    keys, found = pd.read_parquet(set_folder / KEYS), complete(set_folder, labels)
    if output.exists():
        before, versions = read_kept(output)
        if len(before) == len(keys) == len(keys.merge(before, on=KEY)):
            mine = keys.merge(before, on=KEY, how="left")
            found = {name: (version, mine[name].to_numpy()) for name, version in versions.items()} | found
    order = np.lexsort((keys.query_id.to_numpy(str), keys.passage_id.to_numpy(str)))
    columns = {name: pa.array(keys[name].to_numpy()[order]) for name in KEY}
    for teacher, (_, values) in found.items():
        inside = np.clip(values.astype(np.float64), _LEAST, 1 - _LEAST)
        logits = np.log(inside / (1 - inside)).astype("<f2")[order]
        columns[f"logit_{teacher}"] = pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(2), len(logits), [None, pa.py_buffer(logits.tobytes())]
        )
    told = {"versions": {teacher: version for teacher, (version, _) in found.items()}, "about": about}
    table = pa.table(columns).replace_schema_metadata({WHAT: json.dumps(told).encode()})
    output.parent.mkdir(parents=True, exist_ok=True)
    _write(output, lambda path: pq.write_table(table, path, compression="zstd", compression_level=19))
    return list(found)


def read_kept(file: Path) -> tuple[pd.DataFrame, dict[str, str]]:
    """Pairs with a soft label in [0, 1] for each teacher; and by teacher its version.

    Raises:
        InputError: the file has no such labels.
    """
    table = pq.read_table(file)
    told = (table.schema.metadata or {}).get(WHAT)
    if told is None:
        raise InputError(f"{file} has no soft labels that `labels.py keep` wrote")
    versions = json.loads(told)["versions"]
    frame = table.select(KEY).to_pandas()
    for teacher in versions:
        logits = np.frombuffer(b"".join(table[f"logit_{teacher}"].to_pylist()), dtype="<f2").astype(np.float32)
        frame[teacher] = 1 / (1 + np.exp(-logits))
    return frame, versions


def use(set_folder: Path, kept: list[Path], output: Path) -> TrainingSet:
    """Write the set with the labels that are kept of its pairs.

    Raises:
        InputError: none of its pairs has one.
    """
    keys, versions = pd.read_parquet(set_folder / KEYS), dict[str, str]()
    for file in kept:
        frame, told = read_kept(file)
        versions |= told
        keys = keys.merge(frame, on=KEY, how="left")
    labels = {teacher: (version, keys[teacher].to_numpy(np.float32)) for teacher, version in versions.items()}
    if not any(np.isfinite(values).any() for _, values in labels.values()):
        raise InputError(f"{', '.join(map(str, kept))}: no label of a pair of {set_folder}")
    labelled_set(TrainingSet.read(str(set_folder)), labels, output)
    return TrainingSet.read(str(output))


def _write(path: Path, write: object) -> None:
    part = path.with_name(f".part-{path.name}")
    write(part)  # type: ignore[operator]
    part.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("label", "keep", "use"):
        one = commands.add_parser(name)
        one.add_argument("--set", type=Path, required=True, help="folder of the training set")
        if name == "use":
            one.add_argument("--kept", type=Path, required=True, nargs="+", help="files that keep wrote")
        else:
            one.add_argument("--labels", type=Path, required=True, help="folder of the labels' parts")
        if name == "label":
            one.add_argument("--model", required=True, help="folder of the teacher")
            one.add_argument("--teacher", required=True, help="its id")
            one.add_argument("--seconds", type=float, help="after which it stops between two loads of the model")
            one.add_argument("--at-once", type=int, default=1, help="files of the set that one load scores")
        else:
            one.add_argument("--output", type=Path, required=True)
        if name == "keep":
            one.add_argument("--about", default="", help="what made them")
    given = parser.parse_args()
    if given.command == "label":
        done = label(given.model, given.set, given.teacher, given.labels, given.seconds, given.at_once)
        print("complete" if done else "not complete: the same command goes on")
    elif given.command == "keep":
        print(f"{given.output}: {', '.join(keep(given.set, given.labels, given.output, given.about)) or 'no teacher'}")
    else:
        made = use(given.set, given.kept, given.output)
        print(f"{given.output}: labels of {', '.join(made.teacher_ids)}")


if __name__ == "__main__":
    main()
