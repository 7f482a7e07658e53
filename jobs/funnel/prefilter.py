"""Scores a query's passages by their words, so that only the likely ones become pairs: BM25, or the share of words."""

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from jobs.funnel.selection import PASSAGES
from mkdm.columns import PASSAGE, QUERY, QUERY_ID
from udfs.passages import word_counts_udf

BM25, OVERLAP = "bm25", "overlap"
K1, B = 1.2, 0.75
"""How soon a repeated word counts no more, and how much longer passages count less: as in `bm25`."""
COUNTS, WORDS = "counts", "words"


def with_counts(passages: DataFrame) -> DataFrame:
    """The passages with `counts`: by word, how often it occurs."""
    return passages.withColumn(COUNTS, word_counts_udf()(PASSAGE))


def length_of(counts: Column) -> Column:
    """How many words a passage has, given its counts."""
    return F.aggregate(F.map_values(counts), F.lit(0.0), lambda total, count: total + count)


def query_words(queries: DataFrame, passages: DataFrame, kind: str) -> DataFrame:
    """By query, its distinct words and what each weighs.

    Args:
        queries: query_id, query.
        passages: with `counts`, each text once.
        kind: bm25 or overlap.

    Returns:
        query_id; words: array of (word, weight). For bm25 it is ln(1 + (N − n + 0.5) / (n + 0.5)) of a word in n of N
        passages; for overlap 1 / the number of the query's words.
    """
    distinct = queries.select(QUERY_ID, F.map_keys(word_counts_udf()(QUERY)).alias("_words"))
    exploded = distinct.select(
        QUERY_ID, F.posexplode("_words").alias("_place", "word"), F.size("_words").alias("_size")
    )
    if kind == OVERLAP:
        weighed = exploded.withColumn("weight", 1 / F.col("_size"))
    else:
        number = passages.agg(F.count("*").alias("_all"))
        wanted = exploded.select("word").distinct()
        occurring = passages.select(F.explode(F.map_keys(COUNTS)).alias("word")).join(wanted, "word", "left_semi")
        frequency = occurring.groupBy("word").agg(F.count("*").alias("_n"))
        n = F.coalesce("_n", F.lit(0))
        weighed = (
            exploded.join(frequency, "word", "left")
            .crossJoin(F.broadcast(number))  # of one row
            .withColumn("weight", F.log(1 + (F.col("_all") - n + 0.5) / (n + 0.5)))
        )
    return weighed.groupBy(QUERY_ID).agg(
        F.array_sort(F.collect_list(F.struct("_place", "word", "weight"))).alias(WORDS)
    )


def scored_passages(rows: DataFrame, kind: str, mean_length: float) -> DataFrame:
    """The rows with their passages in order of score, best first; equal ones in the order of the document.

    Args:
        rows: words of the query (null for none), and _passages: array of (ordinal, passage_id, counts, …).
        mean_length: words of a passage in the mean.

    Returns:
        The rows without `words`; the passages have `score`, float64, and no counts.
    """

    def score(passage: Column) -> Column:
        damping = F.lit(K1) * (F.lit(1 - B) + F.lit(B / (mean_length or 1.0)) * length_of(passage[COUNTS]))

        def add(total: Column, word: Column) -> Column:
            count = F.try_element_at(passage[COUNTS], word["word"])
            part = F.lit(1.0) if kind == OVERLAP else count / (count + damping)
            return total + F.when(count.isNull(), 0.0).otherwise(word["weight"] * part)

        return F.coalesce(F.aggregate(WORDS, F.lit(0.0), add), F.lit(0.0))

    fields = rows.schema[PASSAGES].dataType.elementType.fieldNames()  # type: ignore[attr-defined]
    kept = [name for name in fields if name != COUNTS]
    negative = F.transform(
        PASSAGES, lambda one: F.struct((-score(one)).alias("_minus"), *(one[name].alias(name) for name in kept))
    )
    best_first = F.transform(  # the struct's next field is the ordinal
        F.array_sort(negative),
        lambda one: F.struct(*(one[name].alias(name) for name in kept), (-one["_minus"]).alias("score")),
    )
    return rows.withColumn(PASSAGES, best_first).drop(WORDS)
