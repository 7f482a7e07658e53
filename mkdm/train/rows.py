"""Rows of a training set as arrays, and the names of their columns in its files."""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mkdm.columns import GOLDEN_LABEL

PAIR_HASH = "pair"
INPUT_IDS = "input_ids"
LENGTH = "length"
QUERY_LENGTH = "query_length"
SOURCE = "source"
NO_GOLDEN_LABEL = -1


def soft_label_column(teacher: int) -> str:
    """The column of a teacher's soft labels, by its number."""
    return f"soft_label_{teacher}"


@dataclass(frozen=True)
class TrainingRows:
    """Rows of a training set, such as one row group.

    Attributes:
        pairs: int64[n], xxhash64 of query_id and passage_id, which names the pair.
        input_ids: int32[n, max_length], padded.
        lengths: int32[n], tokens of each pair, special tokens included.
        query_lengths: int32[n], tokens of each query, without special tokens.
        golden_labels: int8[n], 0 or 1, and -1 where there is none.
        soft_labels: float32[n, teachers], in [0, 1], and NaN where there is none.
        sources: int8[n], numbers of `TrainingSet.sources`.
    """

    pairs: NDArray[np.int64]
    input_ids: NDArray[np.int32]
    lengths: NDArray[np.int32]
    query_lengths: NDArray[np.int32]
    golden_labels: NDArray[np.int8]
    soft_labels: NDArray[np.float32]
    sources: NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.pairs)

    def take(self, rows: NDArray[np.int64]) -> "TrainingRows":
        """The chosen rows, in that order."""
        return TrainingRows(*(getattr(self, field.name)[rows] for field in fields(self)))

    @staticmethod
    def concat(parts: "list[TrainingRows]") -> "TrainingRows":
        """The rows of all parts, one after the other; at least one part."""
        names = [field.name for field in fields(TrainingRows)]
        return TrainingRows(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    @staticmethod
    def of_columns(columns: dict[str, NDArray[Any]], teachers: int) -> "TrainingRows":
        """From the columns of a file, as arrays; input_ids as a matrix."""
        rows = len(columns[PAIR_HASH])
        soft_labels = np.empty((rows, teachers), dtype=np.float32)
        for teacher in range(teachers):
            soft_labels[:, teacher] = columns[soft_label_column(teacher)]
        return TrainingRows(
            pairs=columns[PAIR_HASH],
            input_ids=columns[INPUT_IDS],
            lengths=columns[LENGTH],
            query_lengths=columns[QUERY_LENGTH],
            golden_labels=columns[GOLDEN_LABEL],
            soft_labels=soft_labels,
            sources=columns[SOURCE],
        )
