"""Spark's own way to score: `predict_batch_udf` over a plain transformers model, a peer of `mkdm benchmark`."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyspark.ml.functions import predict_batch_udf
from pyspark.sql.types import FloatType
from pyspark.sql.udf import UserDefinedFunction

PEER_ROWS = 1024
"""Pairs that are given to the model at once, which it sorts by length and takes 32 at a time."""

Texts = NDArray[Any]


def plain_score_udf(folder: str, precision: str) -> UserDefinedFunction:
    """A UDF `(query, passage) -> score` (float).

    Args:
        folder: of a plain model, see `mkdm.benchmark.plain_student`.
        precision: fp32, bf16 or fp16.
    """

    def load() -> Callable[[Texts, Texts], NDArray[np.float32]]:
        from mkdm.benchmark import transformers  # torch is imported on executors alone

        score = transformers(folder, precision)
        return lambda queries, passages: score(queries.tolist(), passages.tolist())

    return predict_batch_udf(load, return_type=FloatType(), batch_size=PEER_ROWS)  # type: ignore[arg-type,return-value]
