"""Scores queries and passages by their words: how many passages a word occurs in, and a block's best passages."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

import pandas as pd
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.functions import pandas_udf
from pyspark.sql.types import ArrayType, DoubleType, IntegerType, StringType, StructField, StructType
from pyspark.sql.udf import UserDefinedFunction

from mkdm.columns import PASSAGE
from mkdm.text import words

__all__ = ["block_udf", "distinct_words_udf", "word_frequencies"]

BEST = StructType(
    [
        StructField("query", ArrayType(IntegerType())),
        StructField("passage", ArrayType(IntegerType())),
        StructField("score", ArrayType(DoubleType())),
    ]
)


def word_frequencies(passages: DataFrame) -> DataFrame:
    """In how many passages each word occurs.

    Args:
        passages: passage.

    Returns:
        word; passages: how many have it; words: 0. In the one row whose word is null, there if any passage is: how many
        passages there are, and how many words they have in all.
    """

    def count(batches: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        for batch in batches:
            found, total = Counter[str](), 0
            for text in batch[PASSAGE]:
                total += len(one := words(text))
                found.update(set(one))
            numbers, others = [len(batch), *found.values()], [0] * len(found)
            yield pd.DataFrame({"word": [None, *found], "passages": numbers, "words": [total, *others]})

    by_batch = passages.select(PASSAGE).mapInPandas(count, "word string, passages long, words long")
    return by_batch.groupBy("word").agg(F.sum("passages").alias("passages"), F.sum("words").alias("words"))


def distinct_words_udf() -> UserDefinedFunction:
    """A pandas UDF `text -> array of its distinct words`, in the order of their first occurrence."""

    def split(texts: pd.Series) -> pd.Series:
        return texts.map(lambda text: list(dict.fromkeys(words(text))))

    splitting: Callable[[pd.Series], pd.Series] = split
    return pandas_udf(splitting, ArrayType(StringType()))  # type: ignore[call-overload,no-any-return]


def block_udf(most: int | None, mean_length: float = 0.0) -> UserDefinedFunction:
    """A pandas UDF that scores all passages of a block for all its queries, and keeps each query's best.

    It takes arrays: of n queries (text), of m passages (text), and, for BM25, of n arrays of weights, as
    `mkdm.text.word_scores` takes them. Without weights a score is the share of the query's words.

    Args:
        most: passages of a query that are kept at most; None keeps all.
        mean_length: words of a passage in the mean.

    Returns:
        A UDF whose result has three arrays of one length: places of the query and of the passage in the block, from 0,
        and the score, float64. Best first by query; equal ones in the order of the passages.
    """

    def score(queries: pd.Series, passages: pd.Series, *weights: pd.Series) -> pd.DataFrame:
        import numpy as np

        from mkdm.text import word_scores

        found = []
        for some_queries, some_passages, *of_words in zip(queries, passages, *weights, strict=True):
            scores = word_scores(some_queries, some_passages, of_words[0] if of_words else None, mean_length)
            best = np.argsort(-scores, axis=1, kind="stable")[:, :most]
            places = np.repeat(np.arange(len(scores), dtype=np.int32), best.shape[1])
            found.append((places, best.ravel().astype(np.int32), np.take_along_axis(scores, best, axis=1).ravel()))
        return pd.DataFrame(found, columns=BEST.names)

    scoring: Callable[..., pd.DataFrame] = score
    return pandas_udf(scoring, BEST).asNondeterministic()  # type: ignore[call-overload,no-any-return]
