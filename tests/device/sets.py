"""Training sets where there is no Spark: pairs in, files and manifest as `mkdm export-training-set` writes them, out.

    python tests/device/sets.py --pairs DIR --output DIR --tokenizer DIR [--share 1.0]

`--pairs` holds what `tests/paper/pairs.py` wrote: a folder a set, with pairs.parquet and perhaps golden_labels.parquet.
Ids and texts are encoded by the scorer's own `PairEncoder`. Beside each manifest `keys.parquet` tells which pair a row
is: query_id and passage_id in the order of the files. The column `pair` is a hash of the two, though not Spark's.
"""

import argparse
import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

import mkdm
from mkdm.model import load_tokenizer, tokenizer_version
from mkdm.scoring import PairEncoder
from mkdm.train import INPUT_IDS, LENGTH, MANIFEST, PAIR_HASH, QUERY_LENGTH, SOURCE, TrainingFile, TrainingSet
from mkdm.train.training_set import stable_share

KEYS = "keys.parquet"
KEY = ["query_id", "passage_id"]
SPLITS = ("valid", "test")
"""Splits that a set is, where its name begins so; all others are the split `train`."""
ROWS_PER_FILE = 8192
_IDS = pa.list_(pa.field("item", pa.int32(), nullable=False))


def read_pairs(folder: Path) -> pd.DataFrame:
    """The pairs of a set with their golden labels, -1 for none."""
    rows = pd.read_parquet(folder / "pairs.parquet")
    labels = folder / "golden_labels.parquet"
    if not labels.exists():
        return rows.assign(golden_label=-1)
    return rows.merge(pd.read_parquet(labels, columns=[*KEY, "golden_label"]), on=KEY)


def write_set(rows: pd.DataFrame, split: str, tokenizer_folder: str, folder: Path, max_length: int = 160) -> int:
    """Write a set of one split, unless the same is there.

    Args:
        rows: query_id, passage_id, query, passage, source, golden_label, each pair once.

    Returns:
        How many rows it has; pairs that cannot be encoded are left out.
    """
    tokenizer = load_tokenizer(tokenizer_folder)
    encoder, version = PairEncoder(tokenizer, max_length), tokenizer_version(tokenizer)
    rows = rows.sort_values(KEY, ignore_index=True)
    content = hashlib.sha256(json.dumps([split, version, max_length, ROWS_PER_FILE]).encode())
    told = rows[[*KEY, "query", "passage", "source", "golden_label"]]
    content.update(pd.util.hash_pandas_object(told, index=False).to_numpy().tobytes())
    fingerprint = content.hexdigest()[:32]
    if (folder / MANIFEST).exists() and TrainingSet.read(str(folder)).fingerprint == fingerprint:
        return TrainingSet.read(str(folder)).rows(split)
    pairs = encoder.encode(rows["query"].tolist(), rows.passage.tolist())
    files = max(1, round(len(rows) / ROWS_PER_FILE))
    number = np.array([int(stable_share(f"file/{query}") * files) for query in rows.query_id])
    place = np.array([_hash(*key) for key in zip(rows.query_id, rows.passage_id, strict=True)], dtype=np.int64)
    sources = sorted(rows.source.unique())
    written, keys = [], []
    for file in range(files):
        mine = np.flatnonzero((number == file) & (pairs.lengths > 0))
        mine = mine[np.argsort(place[mine])]
        if not len(mine):
            continue
        ids = np.full((len(mine), max_length), encoder.template.pad_id, dtype=np.int32)
        for start in range(0, len(mine), 1024):
            batch = encoder.batch(pairs, mine[start : start + 1024]).input_ids
            ids[start : start + len(batch), : batch.shape[1]] = batch
        offsets = np.arange(0, ids.size + 1, max_length, dtype=np.int32)
        table = pa.table(
            {
                PAIR_HASH: place[mine],
                INPUT_IDS: pa.ListArray.from_arrays(offsets, ids.ravel(), type=_IDS),
                LENGTH: pairs.lengths[mine],
                QUERY_LENGTH: np.array([len(pairs.query_ids[row]) for row in mine], dtype=np.int32),
                "golden_label": rows.golden_label.to_numpy(np.int8)[mine],
                SOURCE: np.array([sources.index(name) for name in rows.source.to_numpy()[mine]], dtype=np.int8),
            }
        )
        written.append(_write(table, folder, f"{fingerprint[:16]}/{split}/file={file}/part.zstd.parquet", split))
        keys.append(rows[KEY].iloc[mine])
    pd.concat(keys).reset_index(drop=True).to_parquet(folder / KEYS)
    size = sum(file.rows for file in written)
    made = TrainingSet(
        folder=str(folder),
        fingerprint=fingerprint,
        run_id="tests/device/sets.py",
        max_length=max_length,
        teacher_ids=[],
        teacher_versions=[],
        tokenizer=version,
        template=encoder.template,
        sources=sources,
        splits={split: 1.0},
        counts={"exported": size, "rejected": len(rows) - size, "splits": {split: {"rows": size}}},
        settings={},
        input_versions={},
        columns={},
        engine_version=mkdm.__version__,
        files=written,
    )
    part = folder / f".{MANIFEST}.part"
    part.write_text(made.manifest())
    part.replace(folder / MANIFEST)
    return size


def write_sets(folders: Sequence[Path], output: Path, tokenizer: str, share: float = 1.0) -> Iterator[tuple[str, int]]:
    """Write the set of each folder of pairs, of a share of the queries; yields names and rows."""
    for folder in folders:
        rows = read_pairs(folder)
        if share < 1:
            rows = rows[rows.query_id.map(lambda key: stable_share(f"device/{key}")) < share]
        split = next((name for name in SPLITS if folder.name.startswith(name)), "train")
        yield folder.name, write_set(rows, split, tokenizer, output / folder.name)


def _hash(*key: str) -> int:
    return int.from_bytes(hashlib.sha256("\t".join(key).encode()).digest()[:8], "big", signed=True)


def _write(table: pa.Table, folder: Path, path: str, split: str) -> TrainingFile:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", row_group_size=len(table))
    content: Any = buffer.getvalue()
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_bytes(content)
    return TrainingFile(path, split, len(table), [len(table)], len(content), hashlib.sha256(content).hexdigest())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=Path, required=True, help="folder of the sets' pairs")
    parser.add_argument("--output", type=Path, required=True, help="folder of the training sets")
    parser.add_argument("--tokenizer", required=True, help="folder of the encoder whose tokenizer encodes them")
    parser.add_argument("--share", type=float, default=1.0, help="share of the queries, by a stable hash")
    given = parser.parse_args()
    folders = sorted(path.parent for path in given.pairs.glob("*/pairs.parquet"))
    for name, size in write_sets(folders, given.output, given.tokenizer, given.share):
        print(f"{name}: {size:,} rows")


if __name__ == "__main__":
    main()
