"""A small training set made with pyarrow alone, as `mkdm export-training-set` would write it."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mkdm.scoring.template import Template
from mkdm.train.training_set import MANIFEST, TrainingFile, TrainingSet

IDS = pa.list_(pa.field("item", pa.int32(), nullable=False))
TEMPLATE = Template(pad_id=0, query_start=1, has_types=True, second_type_start=2, second_type=1)
SEPARATOR = 3


def columns(rows: int, max_length: int, teachers: int, seed: int) -> pa.Table:
    """Random rows: every third without a golden label, every fourth without a label of each teacher."""
    random = np.random.default_rng(seed)
    lengths = random.integers(max_length // 2, max_length + 1, rows, dtype=np.int32)
    ids = random.integers(5, 1000, (rows, max_length), dtype=np.int32)
    ids[np.arange(max_length) >= lengths[:, None]] = TEMPLATE.pad_id
    offsets = np.arange(0, rows * max_length + 1, max_length, dtype=np.int32)
    table = {
        "pair": random.integers(-(2**63), 2**63 - 1, rows),
        "input_ids": pa.ListArray.from_arrays(offsets, ids.ravel(), type=IDS),
        "length": lengths,
        "query_length": random.integers(1, max_length // 2 - 3, rows, dtype=np.int32),
        "golden_label": np.where(np.arange(rows) % 3 == 0, -1, random.integers(0, 2, rows)).astype(np.int8),
    }
    for teacher in range(teachers):
        labels = random.random(rows, dtype=np.float32)
        table[f"soft_label_{teacher}"] = np.where(np.arange(rows) % 4 == teacher, np.float32(np.nan), labels)
    table["source"] = random.integers(0, 2, rows).astype(np.int8)
    return pa.table(table)


def learnable(rows: int, max_length: int, teachers: int, seed: int) -> pa.Table:
    """Golden label: whether the pair is short. Teachers: nearly sure of it. Every third pair lacks the golden label."""
    table = columns(rows, max_length, teachers, seed)
    short = table["length"].to_numpy() < max_length * 3 // 4
    golden = np.where(np.arange(rows) % 3 == 0, -1, short).astype(np.int8)
    table = table.set_column(table.column_names.index("golden_label"), "golden_label", pa.array(golden))
    for teacher in range(teachers):
        name = f"soft_label_{teacher}"
        soft = np.where(np.isnan(table[name].to_numpy()), np.nan, 0.1 + 0.8 * short).astype(np.float32)
        table = table.set_column(table.column_names.index(name), name, pa.array(soft))
    return table


def write_training_set(
    folder: Path,
    file_rows: dict[str, list[int]],
    max_length: int = 24,
    teacher_ids: tuple[str, ...] = ("bge", "e5"),
    tokenizer: str = "0" * 16,
    make: Callable[[int, int, int, int], pa.Table] = columns,
) -> TrainingSet:
    """Write the files, by split one for each number of rows, and the manifest."""
    files = []
    for split, sizes in file_rows.items():
        for number, rows in enumerate(sizes):
            path = f"{'f' * 16}/{split}/file={number}/part.zstd.parquet"
            (folder / path).parent.mkdir(parents=True)
            table = make(rows, max_length, len(teacher_ids), len(files))
            pq.write_table(table, folder / path, compression="zstd", row_group_size=rows)
            content = (folder / path).read_bytes()
            files.append(TrainingFile(path, split, rows, [rows], len(content), hashlib.sha256(content).hexdigest()))
    training_set = TrainingSet(
        folder=str(folder),
        fingerprint="f" * 32,
        run_id="export-training-set-ffffffffffffffff",
        max_length=max_length,
        teacher_ids=list(teacher_ids),
        teacher_versions=["1" * 16] * len(teacher_ids),
        tokenizer=tokenizer,
        template=TEMPLATE,
        sources=["amazon", "wiki"],
        splits={split: 1 / len(file_rows) for split in file_rows},
        counts={"splits": {split: {"rows": sum(sizes)} for split, sizes in file_rows.items()}},
        settings={},
        input_versions={},
        columns={},
        engine_version="0",
        files=files,
    )
    (folder / MANIFEST).write_text(training_set.manifest())
    return training_set


def with_separators(rows: int, max_length: int, teachers: int, seed: int) -> pa.Table:
    """The learnable rows, with [SEP] behind query and passage, which tell how short a pair is."""
    table = learnable(rows, max_length, teachers, seed)
    ids = np.array(table["input_ids"].to_pylist(), dtype=np.int32)
    every, lengths = np.arange(rows), table["length"].to_numpy()
    ids[every, table["query_length"].to_numpy() + 1] = SEPARATOR
    ids[every, lengths - 1] = SEPARATOR
    short = lengths < max_length * 3 // 4
    ids[every, 1] = ids[every, lengths - 2] = np.where(short, 7, 8)
    values = pa.ListArray.from_arrays(
        np.arange(0, rows * max_length + 1, max_length, dtype=np.int32), ids.ravel(), type=table["input_ids"].type
    )
    return table.set_column(table.column_names.index("input_ids"), "input_ids", values)
