"""Which split and which source each row of a training set belongs to, and the columns that its files have."""

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from mkdm.columns import GOLDEN_LABEL, QUERY_ID
from udfs.training_rows import INPUT_IDS, LENGTH, PAIR_HASH, QUERY_LENGTH, SOURCE, soft_label_column

SPLIT, LEFT_OUT, OF_QUERY = "split", "left_out", "of_query"
MOST_SOURCES = 100
"""Sources that are told apart at most; with more of them, none is."""


def stable_share() -> Column:
    """A number in [0, 1) that depends on query_id alone: `mkdm.train.training_set.stable_share` of "split/<query_id>".

    Not of the bare id: who draws a sample of queries by that, as the shipped one was, would get it all into one split.
    """
    key = F.concat(F.lit("split/"), QUERY_ID)
    return F.conv(F.substring(F.sha2(key, 256), 1, 16), 16, 10).cast("double") / F.lit(2.0**64)


def split_of(shares: dict[str, float]) -> Column:
    """The split of a row: by the stable share of its query_id, so that all pairs of a query are in the same one.

    Args:
        shares: by split, its share of the queries; they sum to 1.
    """
    names = [name for name, share in shares.items() if share > 0]
    bounds, bound = {}, 0.0
    for name in names[:-1]:
        bound += shares[name]
        bounds[name] = bound
    split = F.lit(names[-1])
    for name, bound in reversed(bounds.items()):
        split = F.when(stable_share() < bound, name).otherwise(split)
    return split


def sources_of(exported: DataFrame) -> list[str]:
    """The sources that are told apart, in order; their numbers are those in the files."""
    found = exported.select(SOURCE).distinct().limit(MOST_SOURCES + 1).collect()
    return sorted(row[SOURCE] for row in found) if len(found) <= MOST_SOURCES else [""]


def training_rows(exported: DataFrame, sources: list[str], teachers: int) -> DataFrame:
    """The rows as the files have them, with their split and a hash of their query; no column has nulls."""
    number = F.array_position(F.array(*map(F.lit, sources)), F.col(SOURCE)) - 1  # -1 where it is not told apart
    return exported.select(
        SPLIT,
        F.xxhash64(QUERY_ID).alias(OF_QUERY),
        PAIR_HASH,
        INPUT_IDS,
        LENGTH,
        QUERY_LENGTH,
        GOLDEN_LABEL,
        *(soft_label_column(teacher) for teacher in range(teachers)),
        F.greatest(number, F.lit(0)).cast("tinyint").alias(SOURCE),
    )
