"""Scores a query's passages by their words, so that only the likely ones become pairs: BM25, or the share of words."""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.funnel.selection import PASSAGES, QUERIES
from mkdm.columns import ORDINAL, PASSAGE, PASSAGE_ID, QUERY, QUERY_ID, SCORE
from udfs.words import block_udf, distinct_words_udf, word_frequencies

BM25, OVERLAP = "bm25", "overlap"
WEIGHTS = "weights"


def weighed(chosen: DataFrame, passages: DataFrame) -> tuple[DataFrame, float]:
    """The rows with what their query's words weigh in BM25, and how many words a passage has in the mean.

    Args:
        chosen: query_id, query, and more; several rows of a query if need be.
        passages: passage, each text once.

    Returns:
        The rows with `weights`: array of float64, by distinct word of the query in the order of their first occurrence:
        ln(1 + (N − n + 0.5) / (n + 0.5)) of a word in n of N passages.
    """
    frequencies = word_frequencies(passages)
    totals = frequencies.where("word IS NULL").first()
    number, words = (int(totals["passages"]), int(totals["words"])) if totals else (0, 0)
    queries = chosen.select(QUERY_ID, QUERY).distinct()
    exploded = queries.select(QUERY_ID, F.posexplode(distinct_words_udf()(QUERY)).alias("_place", "word"))
    n = F.coalesce("passages", F.lit(0))
    weight = F.log(1 + (F.lit(float(number)) - n + 0.5) / (n + 0.5)).alias("_weight")
    by_word = exploded.join(frequencies, "word", "left").select(QUERY_ID, F.struct("_place", weight).alias("_one"))
    by_query = by_word.groupBy(QUERY_ID).agg(F.array_sort(F.collect_list("_one"))["_weight"].alias(WEIGHTS))
    none = F.array().cast("array<double>")  # of a query without words
    return chosen.join(by_query, QUERY_ID, "left").withColumn(WEIGHTS, F.coalesce(WEIGHTS, none)), words / (number or 1)


def likely_pairs(blocks: DataFrame, kind: str, mean_length: float, most: int | None, with_passage: bool) -> DataFrame:
    """A row per query and passage of the blocks, as `selection.first_pairs` takes them.

    Args:
        blocks: as `selection.blocks` gives them, the passages with their texts; for bm25 the queries with `weights`.
        kind: bm25 or overlap.
        mean_length: words of a passage in the mean, for bm25.
        most: the best so many of a query's passages in a block; None for all. Equal ones in the order of the document.

    Returns:
        query_id, query, place, passage_id, ordinal, score (float64), and passage if wanted.
    """
    columns = [F.col(QUERIES)[QUERY], F.col(PASSAGES)[PASSAGE]]
    if kind == BM25:
        columns.append(F.col(QUERIES)[WEIGHTS])
    scored = blocks.select(QUERIES, PASSAGES, block_udf(most, mean_length)(*columns).alias("_best"))
    best = F.arrays_zip("_best.query", "_best.passage", "_best.score")
    pairs = scored.select(QUERIES, PASSAGES, F.inline(best).alias("_query", "_passage", SCORE))
    query, passage = F.col(QUERIES)[F.col("_query")], F.col(PASSAGES)[F.col("_passage")]
    kept = [passage[name].alias(name) for name in (PASSAGE_ID, ORDINAL, *([PASSAGE] if with_passage else []))]
    return pairs.select(*(query[name].alias(name) for name in (QUERY_ID, QUERY, "place")), *kept, SCORE)
