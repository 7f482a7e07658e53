"""The UDFs of the funnel: normalised queries, texts without HTML, and documents cut into passages."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import pandas as pd
from pyspark.sql import SparkSession
from pyspark.sql.functions import udf
from pyspark.sql.pandas.functions import pandas_udf
from pyspark.sql.types import ArrayType, LongType, StringType, StructField, StructType
from pyspark.sql.udf import UserDefinedFunction

from mkdm.errors import ModelError
from mkdm.text import HTML, VISIBLE, normalise_query, strip_html
from udfs.asking import ask_a_task
from udfs.model import seen_by_tasks
from udfs.scoring import MAX_MESSAGE
from udfs.shipping import receive, shipped

if TYPE_CHECKING:  # transformers, and torch with it, are imported on executors alone
    from mkdm.text import PassageCutter

__all__ = [
    "ERROR",
    "HTML",
    "KEY",
    "VISIBLE",
    "CutSettings",
    "cut_settings",
    "cut_udf",
    "min_hashes_udf",
    "normalise_udf",
    "strip_html_udf",
]

KEY, PASSAGE, ERROR = "key", "passage", "error"
CUT = ArrayType(StructType([StructField(name, StringType()) for name in (KEY, PASSAGE, ERROR)]))

TextUdf = Callable[["pd.Series[str]"], "pd.Series[str]"]


@dataclass(frozen=True)
class CutSettings:
    """What decides where documents are cut.

    Attributes:
        tokenizer: folder of the tokenizer, at the same path on every executor.
        version: the `mkdm.train.training_set.tokenizer_version` that it must have there.
        cutter: the `mkdm.text.passages.cutter_version`.
        max_tokens: tokens of a passage at most.
        overlap: tokens at most that two passages share.
    """

    tokenizer: str
    version: str
    cutter: str
    max_tokens: int
    overlap: int

    def __str__(self) -> str:
        return f"{self.cutter}, tokenizer {self.version}, {self.max_tokens} tokens, overlap {self.overlap}"


@lru_cache(maxsize=1)
def loaded_cutter(settings: CutSettings) -> "PassageCutter":
    """Load the tokenizer once in this Python worker.

    Raises:
        ModelError: the folder has no tokenizer that can be used, or another one than the driver was told of.
    """
    cutter, version, name = _load(settings.tokenizer, settings.max_tokens, settings.overlap)
    if (version, name) != (settings.version, settings.cutter):
        raise ModelError(
            f"this executor cuts with {name} and the tokenizer {version} at {settings.tokenizer}, elsewhere it is "
            f"{settings.cutter} and {settings.version}: give every machine the same"
        )
    return cutter


def _load(folder: str, max_tokens: int, overlap: int) -> "tuple[PassageCutter, str, str]":
    from mkdm.model import load_tokenizer, tokenizer_version
    from mkdm.text import PassageCutter, cutter_version

    receive(folder)
    tokenizer = load_tokenizer(folder)
    return PassageCutter(tokenizer, max_tokens, overlap), tokenizer_version(tokenizer), cutter_version()


def cut_settings(spark: SparkSession, folder: str, max_tokens: int, overlap: int) -> CutSettings:
    """What the tokenizer of a folder is.

    Raises:
        ModelError: the folder has no tokenizer that can be used.
    """
    folder = seen_by_tasks(shipped(spark, folder))
    version, cutter = ask_a_task(spark, lambda: _load(folder, max_tokens, overlap)[1:])
    return CutSettings(folder, version, cutter, max_tokens, overlap)


def cut_udf(settings: CutSettings) -> UserDefinedFunction:
    """A pandas UDF `text -> CUT`: the passages of each document, in order.

    It never fails over a row: where a text cannot be cut, or nothing comes of it, the one element has an error alone.
    """

    def cut(texts: Iterator[pd.Series]) -> Iterator[pd.Series]:
        cutter = loaded_cutter(settings)
        for batch in texts:
            yield pd.Series([_cut(cutter, text) for text in batch], dtype=object)

    cutting: Callable[[Iterator[pd.Series]], Iterator[pd.Series]] = cut
    return pandas_udf(cutting, CUT).asNondeterministic()  # type: ignore[call-overload,no-any-return]


def _cut(cutter: "PassageCutter", text: str) -> list[dict[str, str | None]]:
    try:
        passages = cutter.cut(text)
    except BaseException as error:  # whatever one bad document makes the library raise
        panic = type(error).__name__ == "PanicException"  # Rust's, which is no Exception
        if isinstance(error, MemoryError) or not (panic or isinstance(error, Exception)):
            raise
        return [{KEY: None, PASSAGE: None, ERROR: f"{type(error).__name__}: {error}"[:MAX_MESSAGE]}]
    if not passages:
        return [{KEY: None, PASSAGE: None, ERROR: "no passage came of its text"}]
    return [{KEY: key, PASSAGE: passage, ERROR: None} for key, passage in passages]


def normalise_udf() -> UserDefinedFunction:
    """A pandas UDF `query -> normalised query`; null stays null."""

    def normalise(queries: pd.Series) -> pd.Series:
        return queries.map(normalise_query, na_action="ignore")

    normalising: TextUdf = normalise
    return pandas_udf(normalising, StringType()).asNondeterministic()  # type: ignore[call-overload,no-any-return]


def strip_html_udf() -> UserDefinedFunction:
    """A pandas UDF `text -> text without HTML`; null stays null."""

    def strip(documents: pd.Series) -> pd.Series:
        return documents.map(strip_html, na_action="ignore")

    stripping: TextUdf = strip
    return pandas_udf(stripping, StringType()).asNondeterministic()  # type: ignore[call-overload,no-any-return]


def min_hashes_udf() -> UserDefinedFunction:
    """A UDF: Spark ML's array of vectors of one MinHash each -> array of longs, which SQL can take apart."""
    longs = ArrayType(LongType())
    return udf(lambda hashes: [int(one[0]) for one in hashes], longs)  # type: ignore[return-value]
