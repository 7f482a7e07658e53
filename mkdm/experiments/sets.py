"""Training sets whose soft labels come from models of an experiment, labelled where there is no Spark."""

import hashlib
import io
import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mkdm.errors import InputError
from mkdm.train import MANIFEST, TrainingFile, TrainingSet, soft_label_column

Floats = NDArray[np.float32]


def labelled_set(base: TrainingSet, labels: dict[str, tuple[str, Floats]], folder: Path) -> None:
    """Write a set with the soft labels of other teachers, in the place of those that it has.

    Args:
        labels: by teacher, its version and float32[rows of the set], in the order of its files, in [0, 1].
        folder: where to; its manifest comes last. The same set again is left as it is.
    """
    made_of = [base.fingerprint, *(f"{teacher}@{version}" for teacher, (version, _) in labels.items())]
    fingerprint = hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:32]
    with suppress(InputError):
        if TrainingSet.read(str(folder)).fingerprint == fingerprint:
            return
    (folder / MANIFEST).unlink(missing_ok=True)
    files, start = [], 0
    for file in base.files:
        table = pq.ParquetFile(Path(base.folder, file.path)).read()
        kept = [name for name in table.column_names if name not in map(soft_label_column, range(len(base.teacher_ids)))]
        table, here = table.select(kept), slice(start, start + file.rows)
        for number, (_, values) in enumerate(labels.values()):
            table = table.append_column(soft_label_column(number), pa.array(values[here]))
        start += file.rows
        files.append(_write(table, folder, file))
    made = replace(
        base,
        folder=str(folder),
        fingerprint=fingerprint,
        teacher_ids=list(labels),
        teacher_versions=[version for version, _ in labels.values()],
        files=files,
    )
    part = folder / f".{MANIFEST}.part"
    part.write_text(made.manifest())
    part.replace(folder / MANIFEST)


def _write(table: pa.Table, folder: Path, file: TrainingFile) -> TrainingFile:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", row_group_size=len(table))
    path = folder / file.path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(buffer.getvalue())
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()
    return replace(file, rows=len(table), row_groups=[len(table)], bytes=len(buffer.getvalue()), sha256=digest)
