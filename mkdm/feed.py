"""Feeds labelled pairs to the trainer: read from Parquet, encoded once, shuffled by seed and epoch."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mkdm.batching import token_budget_batches
from mkdm.encoding import Batch, EncodedPairs, PairEncoder
from mkdm.errors import InputError


@dataclass(frozen=True)
class LabelledPairs:
    """Encoded pairs with their golden labels.

    Attributes:
        pairs: n encoded pairs.
        golden_labels: int64[n], 0 or 1.
        sources: n strings, where each pair comes from; empty strings where the file has no such column.
    """

    pairs: EncodedPairs
    golden_labels: NDArray[np.int64]
    sources: list[str]

    def __len__(self) -> int:
        return len(self.golden_labels)


def read_labelled_pairs(
    path: str | Path, encoder: PairEncoder, golden_label_column: str = "golden_label", query_share: float = 1.0
) -> LabelledPairs:
    """Read a Parquet file of labelled pairs and encode it.

    Args:
        path: a file with query_id, query, passage, a column of 0/1 labels and perhaps source.
        golden_label_column: the name of the labels' column.
        query_share: the share of the queries to take, in (0, 1]; chosen by a stable hash of query_id, so that a larger
            share holds the smaller one.

    Raises:
        InputError: no such file, a column is missing, the labels are not both 0 and 1, or a pair cannot be encoded.
    """
    needed = ["query_id", "query", "passage", golden_label_column]
    try:
        present = pq.read_schema(path).names
    except OSError as error:
        raise InputError(f"no Parquet file of labelled pairs at {path}: {error}") from error
    missing = [name for name in needed if name not in present]
    if missing:
        raise InputError(f"{path} lacks {', '.join(missing)}; it has {', '.join(present)}")
    table = pq.read_table(path, columns=needed + (["source"] if "source" in present else []))
    columns = table.to_pydict()
    taken = [row for row, query_id in enumerate(columns["query_id"]) if stable_share(str(query_id)) < query_share]
    pairs = encoder.encode(*([columns[name][row] for row in taken] for name in ("query", "passage")))
    if pairs.errors:
        row, fault = min(pairs.errors.items())
        raise InputError(f"row {taken[row]} of {path} cannot be encoded: {fault.message}")
    labels = [columns[golden_label_column][row] for row in taken]
    if set(labels) != {0, 1}:
        found = ", ".join(sorted(map(str, set(labels)))) or "no row"
        raise InputError(f"{golden_label_column} of {path} must hold both 0 and 1 and nothing else; it holds {found}")
    sources = [columns["source"][row] for row in taken] if "source" in columns else [""] * len(taken)
    return LabelledPairs(pairs, np.array(labels, dtype=np.int64), sources)


def stable_share(key: str) -> float:
    """A number in [0, 1) that depends on the text alone, the same on every machine."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64


def training_steps(
    pairs: LabelledPairs, encoder: PairEncoder, batch_size: int, token_budget: int, seed: int, epoch: int
) -> Iterator[list[tuple[Batch, NDArray[np.int64]]]]:
    """One epoch of optimiser steps: each a list of micro-batches with their golden labels int64[b].

    The rows of a step are `batch_size` rows of a permutation that seed and epoch decide; the last step may be smaller.
    """
    order = np.random.default_rng([seed, epoch]).permutation(len(pairs))
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        micro_batches = token_budget_batches(pairs.pairs.lengths[rows], token_budget)
        yield [(encoder.batch(pairs.pairs, rows[part]), pairs.golden_labels[rows[part]]) for part in micro_batches]
