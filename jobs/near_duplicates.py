"""Finds passages that are nearly the same, by MinHash of their shingles; Spark ML hashes and joins."""

from pyspark.ml import Pipeline
from pyspark.ml.feature import HashingTF, MinHashLSH, NGram, RegexTokenizer
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.storagelevel import StorageLevel

from jobs.passages import DUPLICATE_OF
from mkdm.columns import PASSAGE, PASSAGE_ID

SHINGLE_WORDS = 3
HASH_TABLES = 5
_ROUNDS = 10


def near_duplicates(passages: DataFrame, least_similarity: float, seed: int = 0) -> DataFrame:
    """By passage that is nearly another one: the least passage_id of those that it is linked to, directly or not.

    Two passages are linked when the Jaccard similarity of their sets of three-word shingles is at least that high.
    MinHash with 5 tables proposes them: of pairs with similarity s it finds 1 − (1 − s)^5, so 99.9 % at 0.75; each is
    then compared as it is. Passages of fewer than three words have no shingle and are left out.

    Args:
        passages: passage_id, passage, each text once (exact duplicates make a number of links that is quadratic).
        least_similarity: 0 to 1.

    Returns:
        passage_id, duplicate_of.
    """
    shingles = Pipeline(
        stages=[
            RegexTokenizer(inputCol=PASSAGE, outputCol="_words", pattern=r"(?U)\W+"),
            NGram(n=SHINGLE_WORDS, inputCol="_words", outputCol="_shingles"),
            HashingTF(inputCol="_shingles", outputCol="_set", binary=True, numFeatures=1 << 20),
        ]
    )
    with_words = passages.select(PASSAGE_ID, PASSAGE)
    sets = shingles.fit(with_words).transform(with_words).where(F.size("_shingles") > 0).select(PASSAGE_ID, "_set")
    model = MinHashLSH(inputCol="_set", outputCol="_hashes", numHashTables=HASH_TABLES, seed=seed).fit(sets)
    found = model.approxSimilarityJoin(sets, sets, 1 - least_similarity + 1e-9, distCol="_distance")
    one, other = F.col(f"datasetA.{PASSAGE_ID}"), F.col(f"datasetB.{PASSAGE_ID}")
    links = found.where(one < other).select(other.alias(PASSAGE_ID), one.alias(DUPLICATE_OF))
    return _least_linked(links.persist(StorageLevel.DISK_ONLY))


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
