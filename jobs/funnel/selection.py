"""Chooses each query's documents and their passages, and makes the pairs."""

import math

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from jobs.engine import bucket_of_document, chunk_of, dealt_in_order, in_bucket_order, with_bucket
from jobs.funnel.inputs import QUERY_DOCUMENTS, Fault, told, with_faults
from jobs.funnel.passages import DOCUMENTS_SHARING, DUPLICATE_OF
from jobs.funnel.queries import RAW_QUERY_ID
from mkdm.columns import BUCKET, DOC_ID, DOC_RANK, ORDINAL, PASSAGE, PASSAGE_ID, QUERY, QUERY_ID, SCORE
from mkdm.errors import RejectCode

CANDIDATES_PER_TASK = 1_000_000
"""Pairs of one task about, and of one file."""
ROWS_PER_SLICE = 200_000
"""Pairs of one document in one task at most: those of a document with more are dealt to several tasks."""
PAIRS_PER_BLOCK, QUERIES_PER_BLOCK = 16_384, 1_024
"""Pairs and queries of a block about, so that one task holds few: a query's passages of a document are in one block."""
PASSAGES, SIZE, QUERIES = "_passages", "_size", "_queries"
_IS_QUERY = "_is_query"
_SLICE = (BUCKET, DOC_ID, "_slice", "_task")


def tasks_for(candidates: int, slots: int) -> int:
    """Tasks that make so many pairs.

    Args:
        slots: tasks that run at once.
    """
    return max(slots, math.ceil(candidates / CANDIDATES_PER_TASK))


def coded_query_documents(rows: DataFrame, query_map: DataFrame, documents: DataFrame) -> DataFrame:
    """The rows with their normalised query, or with the reason why they are left out.

    Args:
        rows: query_id, doc_id, doc_rank.
        query_map: raw_query_id, query_id.
        documents: doc_id of all documents that have passages.

    Returns:
        query_id (as it came), doc_id, doc_rank, merged_id (of the normalised query), error_code, error_message.
    """
    known = query_map.select(F.col(RAW_QUERY_ID).alias(QUERY_ID), F.col(QUERY_ID).alias("merged_id"))
    there = documents.select(DOC_ID, F.lit(True).alias("_there"))
    joined = rows.join(known, QUERY_ID, "left").join(there, DOC_ID, "left")
    rank = F.col(DOC_RANK)
    wrong = rank.isNull() | F.isnan(rank) | (rank < 0)
    faults: list[Fault] = [
        (
            RejectCode.INVALID_RANK,
            wrong,
            F.concat(F.lit("doc_rank is "), told(rank), F.lit("; it starts at 0 or 1")),
        ),
        (RejectCode.UNKNOWN_QUERY, F.col("merged_id").isNull(), "queries has no such query_id, or rejected it"),
        (RejectCode.UNKNOWN_DOCUMENT, F.col("_there").isNull(), "documents has no such doc_id, or rejected it"),
    ]
    return with_faults(joined, QUERY_DOCUMENTS, *faults, first=rank).drop("_there")


def ranked_documents(coded: DataFrame, queries: DataFrame, documents_per_query: int) -> DataFrame:
    """The best documents of each query that is taken.

    Args:
        coded: rows without a fault, as `coded_query_documents` gives them.
        queries: query_id, query of the queries that are taken.

    Returns:
        query_id, query, doc_id, doc_rank, place (from 1, in the order of doc_rank), chosen (whether among the best).
    """
    best = coded.groupBy(F.col("merged_id").alias(QUERY_ID), DOC_ID).agg(F.min(DOC_RANK).alias(DOC_RANK))
    order = Window.partitionBy(QUERY_ID).orderBy(DOC_RANK, DOC_ID)
    taken = best.join(queries.select(QUERY_ID, QUERY), QUERY_ID)
    placed = taken.withColumn("place", F.row_number().over(order))
    return placed.withColumn("chosen", F.col("place") <= documents_per_query)


def represented(passages: DataFrame) -> DataFrame:
    """The passages with the text of the one that each is a duplicate of, and as many documents that share it.

    So that whatever looks at a duplicate, by words or by boilerplate, sees what its pairs will be scored with.
    """
    there = passages.where(F.col(DUPLICATE_OF).isNull()).select(
        F.col(PASSAGE_ID).alias("_of"), F.col(PASSAGE).alias("_text"), F.col(DOCUMENTS_SHARING).alias("_sharing")
    )
    joined = passages.join(there, F.col(DUPLICATE_OF) == F.col("_of"), "left")
    return (
        joined.withColumn(PASSAGE, F.coalesce("_text", PASSAGE))
        .withColumn(DOCUMENTS_SHARING, F.greatest("_sharing", DOCUMENTS_SHARING))
        .drop("_of", "_text", "_sharing")
    )


def passages_by_document(
    passages: DataFrame, merge_duplicates: bool, boilerplate_documents: int | None, *more: str
) -> DataFrame:
    """A row per document with its passages in order, as pairs take them.

    Args:
        passages: the table of passages.
        merge_duplicates: whether a duplicate goes by the id of the one that it is a duplicate of.
        boilerplate_documents: leave out texts that at least so many documents share; None leaves out none.
        more: columns to keep of each passage besides its id and ordinal.

    Returns:
        doc_id; _passages: array of (ordinal, passage_id, more); _size: how many.
    """
    if boilerplate_documents is not None:
        passages = passages.where(F.col(DOCUMENTS_SHARING) < boilerplate_documents)
    name = F.coalesce(DUPLICATE_OF, PASSAGE_ID) if merge_duplicates else F.col(PASSAGE_ID)
    one = F.struct(ORDINAL, name.alias(PASSAGE_ID), *more)
    in_order = F.array_sort(F.collect_list(one), lambda a, b: a[ORDINAL] - b[ORDINAL])  # a map has no order of its own
    return passages.groupBy(DOC_ID).agg(in_order.alias(PASSAGES), F.count("*").cast("int").alias(SIZE))


def _dealt(chosen: DataFrame, documents: DataFrame, tasks: int, pairs: int, queries: int | None = None) -> DataFrame:
    """Query and document rows, and before them their documents, dealt to tasks by bucket of the document.

    A document of 100,000 queries is dealt to as many tasks as its pairs ask for; neither side is collected, and Spark
    spills what does not fit. Rows, not passages, are multiplied later, task by task.

    Args:
        chosen: query_id, query, doc_id, place, and more.
        documents: as `passages_by_document` gives it.
        tasks: how many.
        pairs: those of a slice at most, about; a query has all passages of its document in one.
        queries: those of a slice at most, about.

    Returns:
        Rows of one bucket, doc_id, _slice and _task lie in one task: one with _passages, those of `chosen` without.
    """
    queries_of = chosen.groupBy(DOC_ID).agg(F.count("*").alias("_queries"))
    slices = F.ceil(F.col("_queries") * F.col(SIZE) / pairs)
    if queries is not None:
        slices = F.greatest(slices, F.ceil(F.col("_queries") / queries))
    sized = documents.join(queries_of, DOC_ID).withColumn("_slices", F.greatest(slices.cast("int"), F.lit(1)))
    slice_of = F.pmod(F.xxhash64(QUERY_ID), F.col("_slices").cast("long")).cast("int")
    left = chosen.join(sized.select(DOC_ID, "_slices"), DOC_ID).withColumn("_slice", slice_of).drop("_slices")
    numbers = F.explode(F.sequence(F.lit(0), F.col("_slices") - 1))
    right = sized.select(DOC_ID, PASSAGES, numbers.alias("_slice"))
    both = left.withColumn(_IS_QUERY, F.lit(True)).unionByName(
        right.withColumn(_IS_QUERY, F.lit(False)), allowMissingColumns=True
    )
    both = both.withColumn(BUCKET, bucket_of_document(DOC_ID))
    task = F.pmod(chunk_of(F.col(BUCKET), tasks) + F.col("_slice"), F.lit(tasks)).cast("int")
    return dealt_in_order(both, task, tasks)


def spread(chosen: DataFrame, documents: DataFrame, tasks: int) -> DataFrame:
    """Query and document rows with the passages of the document, dealt evenly to tasks: see `_dealt`.

    Each task has them in the order of their buckets.
    """
    dealt = _dealt(chosen, documents, tasks, ROWS_PER_SLICE)
    here = Window.partitionBy(*_SLICE).orderBy(_IS_QUERY).rowsBetween(Window.unboundedPreceding, 0)
    return dealt.withColumn(PASSAGES, F.first(PASSAGES).over(here)).where(_IS_QUERY)


def blocks(chosen: DataFrame, documents: DataFrame, tasks: int) -> DataFrame:
    """The same in blocks: a row has a document's passages once, and some of its queries.

    Returns:
        doc_id; _passages; _queries: array of (query_id, query, place, more), all of whom meet all the passages.
    """
    dealt = _dealt(chosen, documents, tasks, PAIRS_PER_BLOCK, QUERIES_PER_BLOCK)
    query = F.struct(*(name for name in chosen.columns if name != DOC_ID))
    queries = F.collect_list(F.when(F.col(_IS_QUERY), query))
    grouped = dealt.groupBy(*_SLICE).agg(queries.alias(QUERIES), F.first(PASSAGES, ignorenulls=True).alias(PASSAGES))
    return grouped.where(F.size(QUERIES) > 0).select(DOC_ID, PASSAGES, QUERIES)


def all_pairs(rows: DataFrame, per_document: int | None) -> DataFrame:
    """A row per query and passage, as `first_pairs` takes them.

    Args:
        rows: as `spread` gives them.
        per_document: the first so many of a document's passages; None for all.
    """
    passages = F.col(PASSAGES) if per_document is None else F.slice(PASSAGES, 1, per_document)
    return rows.select(QUERY_ID, QUERY, "place", F.inline(passages))


def first_pairs(
    pairs: DataFrame, with_passage: bool, merge_duplicates: bool, per_query: int | None, tasks: int
) -> DataFrame:
    """The pairs, each once, in the order of their buckets.

    Args:
        pairs: query_id, query, place, passage_id, ordinal; passage; perhaps score.
        per_query: passages of a query at most: by score if there is one, else by place and ordinal.
        tasks: that they lie in, and are to lie in.

    Returns:
        query_id, passage_id, query, bucket, and passage if wanted.
    """
    by_score = [F.desc(SCORE)] if SCORE in pairs.columns else []
    order = [*by_score, F.col("place"), F.col(ORDINAL), F.col(PASSAGE_ID)]
    if merge_duplicates:  # one text of several documents
        copy = F.row_number().over(Window.partitionBy(QUERY_ID, PASSAGE_ID).orderBy(*order))
        pairs = pairs.withColumn("_copy", copy).where("_copy = 1")
    if per_query is not None:
        number = F.row_number().over(Window.partitionBy(QUERY_ID).orderBy(*order))
        pairs = pairs.withColumn("_number", number).where(F.col("_number") <= per_query)
    chosen = with_bucket(pairs.select(QUERY_ID, PASSAGE_ID, QUERY, *([PASSAGE] if with_passage else [])))
    if merge_duplicates or per_query is not None:  # which lie by query now
        return in_bucket_order(chosen, tasks)
    return chosen.sortWithinPartitions(BUCKET, PASSAGE_ID) if by_score else chosen
