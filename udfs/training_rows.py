"""The encoding UDF of a training set: query and passage in; padded token ids, or an error, out."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import SparkSession
from pyspark.sql.pandas.functions import pandas_udf
from pyspark.sql.types import ArrayType, IntegerType, LongType, StringType, StructField, StructType
from pyspark.sql.udf import UserDefinedFunction

from mkdm.columns import ERROR_CODE, ERROR_MESSAGE
from mkdm.errors import ModelError
from mkdm.scoring import Template
from mkdm.train import (
    INPUT_IDS,
    LENGTH,
    MANIFEST,
    NO_GOLDEN_LABEL,
    PAIR_HASH,
    QUERY_LENGTH,
    SOURCE,
    TrainingFile,
    TrainingSet,
    soft_label_column,
)
from udfs.asking import ask_a_task
from udfs.model import seen_by_tasks
from udfs.scoring import MAX_MESSAGE, texts
from udfs.shipping import receive, shipped

if TYPE_CHECKING:  # transformers, and torch with it, are imported on executors alone
    from mkdm.scoring import PairEncoder

__all__ = [
    "ENCODED",
    "INPUT_IDS",
    "LENGTH",
    "MANIFEST",
    "NO_GOLDEN_LABEL",
    "PAIR_HASH",
    "QUERY_LENGTH",
    "SOURCE",
    "EncodingSettings",
    "Template",
    "TrainingFile",
    "TrainingSet",
    "encode_udf",
    "encoding_settings",
    "row_groups_udf",
    "soft_label_column",
]

ENCODED = StructType(
    [
        StructField(INPUT_IDS, ArrayType(IntegerType(), containsNull=False)),
        StructField(LENGTH, IntegerType()),
        StructField(QUERY_LENGTH, IntegerType()),
        StructField(ERROR_CODE, StringType()),
        StructField(ERROR_MESSAGE, StringType()),
    ]
)
PAIRS_PER_ENCODING = 4096
"""Rows that are encoded at once."""

Batches = Iterator[tuple[pd.Series, pd.Series]]


@dataclass(frozen=True)
class EncodingSettings:
    """What decides the token ids of a pair, besides the texts.

    Attributes:
        tokenizer: folder of the tokenizer, at the same path on every executor.
        version: the `mkdm.train.training_set.tokenizer_version` that it must have there.
        max_length: token ids of every row, padding included.
    """

    tokenizer: str
    version: str
    max_length: int


@lru_cache(maxsize=1)
def loaded_encoder(settings: EncodingSettings) -> "PairEncoder":
    """Load the tokenizer once in this Python worker.

    Raises:
        ModelError: the folder has no tokenizer that can be used, or another one than the driver was told of.
    """
    encoder, version = _load(settings.tokenizer, settings.max_length)
    if version != settings.version:
        raise ModelError(
            f"the tokenizer at {settings.tokenizer} on this executor is {version}, elsewhere it is {settings.version}: "
            f"give every machine the same folder"
        )
    return encoder


def _load(folder: str, max_length: int) -> "tuple[PairEncoder, str]":
    from mkdm.model import load_tokenizer, tokenizer_version
    from mkdm.scoring import PairEncoder

    receive(folder)
    tokenizer = load_tokenizer(folder)
    return PairEncoder(tokenizer, max_length), tokenizer_version(tokenizer)


def encoding_settings(spark: SparkSession, folder: str, max_length: int) -> tuple[EncodingSettings, Template]:
    """What the tokenizer of a folder is.

    Raises:
        ModelError: the folder has no tokenizer that can be used.
    """
    folder = seen_by_tasks(folder)

    def look() -> dict[str, Any]:
        encoder, version = _load(folder, max_length)
        return {"version": version, "template": asdict(encoder.template)}

    folder = shipped(spark, folder)
    found = ask_a_task(spark, look)
    return EncodingSettings(folder, found["version"], max_length), Template(**found["template"])


def encode_udf(settings: EncodingSettings) -> UserDefinedFunction:
    """An iterator pandas UDF `(query, passage) -> ENCODED`; like `score_udf`, it never fails over a row.

    Of a row that cannot be encoded, all but error_code and error_message is null.
    """

    def encode(batches: Iterator[tuple[pd.Series, pd.Series]]) -> Iterator[pd.DataFrame]:
        encoder = loaded_encoder(settings)
        for queries, passages in batches:
            for start in range(0, len(queries), PAIRS_PER_ENCODING):
                window = slice(start, start + PAIRS_PER_ENCODING)
                yield encoded_frame(encoder, texts(queries[window]), texts(passages[window]))

    encoding: Callable[[Batches], Iterator[pd.DataFrame]] = encode
    return pandas_udf(encoding, ENCODED).asNondeterministic()  # type: ignore[call-overload,no-any-return]


def encoded_frame(encoder: "PairEncoder", queries: list[str | None], passages: list[str | None]) -> pd.DataFrame:
    """Pairs as the columns of ENCODED, one row per pair."""
    pairs = encoder.encode(queries, passages)
    size = len(queries)
    errors = [pairs.errors.get(row) for row in range(size)]
    fit = np.array([row for row in range(size) if errors[row] is None], dtype=np.int64)
    ids = np.full((len(fit), encoder.max_length), encoder.template.pad_id, dtype=np.int32)
    if len(fit):
        batch = encoder.batch(pairs, fit).input_ids
        ids[:, : batch.shape[1]] = batch
    input_ids: list[object] = [None] * size
    for row, row_ids in zip(fit, ids, strict=True):
        input_ids[row] = row_ids
    failed = pd.Series([error is not None for error in errors], dtype=bool)
    return pd.DataFrame(
        {
            INPUT_IDS: pd.Series(input_ids, dtype=object),
            LENGTH: pd.Series(pairs.lengths, dtype="Int32").mask(failed),
            QUERY_LENGTH: pd.Series([len(query) for query in pairs.query_ids], dtype="Int32").mask(failed),
            ERROR_CODE: [error and str(error.code) for error in errors],
            ERROR_MESSAGE: [error and error.message[:MAX_MESSAGE] for error in errors],
        }
    )


def row_groups_udf() -> UserDefinedFunction:
    """A pandas UDF: the content of a Parquet file -> rows of each of its row groups."""

    def row_groups(contents: pd.Series) -> pd.Series:
        footers = [pq.ParquetFile(pa.BufferReader(content)).metadata for content in contents]
        return pd.Series([[footer.row_group(i).num_rows for i in range(footer.num_row_groups)] for footer in footers])

    counting: Callable[[pd.Series], pd.Series] = row_groups
    return pandas_udf(counting, ArrayType(LongType()))  # type: ignore[call-overload,no-any-return]
