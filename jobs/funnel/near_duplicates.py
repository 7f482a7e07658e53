"""Finds passages that are nearly the same: by Spark ML's MinHash of their shingles, in bands, then as they are."""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.engine import stored
from jobs.funnel.passages import DUPLICATE_OF
from mkdm.columns import PASSAGE, PASSAGE_ID
from udfs.passages import min_hashes_udf

SHINGLE_WORDS = 3
BANDS, HASHES_PER_BAND = 12, 4
_ROUNDS = 10


def near_duplicates(passages: DataFrame, least_similarity: float, seed: int = 0) -> DataFrame:
    """By passage that is nearly another one: the least passage_id of those that it is linked to, directly or not.

    Two passages are linked when the Jaccard similarity of their sets of three-word shingles is at least that high.
    Those that share one of 12 bands of 4 MinHashes are compared: of pairs with similarity s these are 1 − (1 − s^4)^12,
    so 99.8 % at 0.8, 96 % at 0.7, 9 % at 0.3 (Leskovec et al., Mining of Massive Datasets, 3.4). Passages of fewer than
    three words have no shingle and are left out.

    Args:
        passages: passage_id, passage, each text once (exact duplicates make a number of links that is quadratic).
        least_similarity: 0 to 1.

    Returns:
        passage_id, duplicate_of.
    """
    from pyspark.ml import Pipeline  # which other builds need not wait for
    from pyspark.ml.feature import HashingTF, MinHashLSH, NGram, RegexTokenizer

    shingles = Pipeline(
        stages=[
            RegexTokenizer(inputCol=PASSAGE, outputCol="_words", pattern=r"(?U)\W+"),
            NGram(n=SHINGLE_WORDS, inputCol="_words", outputCol="_shingles"),
            HashingTF(inputCol="_shingles", outputCol="_vector", binary=True, numFeatures=1 << 20),
        ]
    )
    texts = passages.select(PASSAGE_ID, PASSAGE)
    sets = shingles.fit(texts).transform(texts).where(F.size("_shingles") > 0)
    hashing = MinHashLSH(inputCol="_vector", outputCol="_hashes", numHashTables=BANDS * HASHES_PER_BAND, seed=seed).fit(
        sets
    )
    hashed = hashing.transform(sets).select(
        PASSAGE_ID,
        F.array_distinct(F.transform("_shingles", lambda shingle: F.xxhash64(shingle))).alias("_set"),
        min_hashes_udf()("_hashes").alias("_hashes"),
    )
    hashed = stored(hashed)
    bands = [F.xxhash64(F.slice("_hashes", 1 + band * HASHES_PER_BAND, HASHES_PER_BAND)) for band in range(BANDS)]
    buckets = hashed.select(PASSAGE_ID, F.posexplode(F.array(*bands)).alias("_band", "_bucket"))
    other = buckets.withColumnRenamed(PASSAGE_ID, DUPLICATE_OF)
    met = buckets.join(other, ["_band", "_bucket"]).where(F.col(DUPLICATE_OF) < F.col(PASSAGE_ID))
    met = met.select(PASSAGE_ID, DUPLICATE_OF).distinct()
    mine = hashed.select(PASSAGE_ID, F.col("_set").alias("_mine"))
    theirs = hashed.select(F.col(PASSAGE_ID).alias(DUPLICATE_OF), F.col("_set").alias("_theirs"))
    both = F.size(F.array_intersect("_mine", "_theirs"))
    similarity = both / (F.size("_mine") + F.size("_theirs") - both)
    compared = met.join(mine, PASSAGE_ID).join(theirs, DUPLICATE_OF).where(similarity >= least_similarity)
    links = stored(compared.select(PASSAGE_ID, DUPLICATE_OF))
    return _least_linked(links)


def _least_linked(links: DataFrame) -> DataFrame:
    """The least passage of each group of linked ones, by handing the least known one on from neighbour to neighbour."""
    both = links.unionByName(links.select(F.col(DUPLICATE_OF).alias(PASSAGE_ID), F.col(PASSAGE_ID).alias(DUPLICATE_OF)))
    labels = both.groupBy(PASSAGE_ID).agg(F.least(F.min(DUPLICATE_OF), F.col(PASSAGE_ID)).alias("_least"))
    for _ in range(_ROUNDS):
        labels = labels.localCheckpoint()
        offered = both.join(labels.withColumnRenamed(PASSAGE_ID, DUPLICATE_OF), DUPLICATE_OF)
        best = offered.groupBy(PASSAGE_ID).agg(F.min("_least").alias("_offered"))
        after = labels.join(best, PASSAGE_ID).select(PASSAGE_ID, F.least("_least", "_offered").alias("_least"))
        if after.join(labels, [PASSAGE_ID, "_least"], "left_anti").isEmpty():
            break
        labels = after
    return labels.where(F.col("_least") != F.col(PASSAGE_ID)).select(PASSAGE_ID, F.col("_least").alias(DUPLICATE_OF))
