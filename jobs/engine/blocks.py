"""From rows of pairs to blocks, each text in it once, and from a block's results back to rows.

A row of blocks has, besides what tells it (chunk, part, group, block):

    queries   array of (query_id, query), distinct
    passages  array of (passage_id, passage), distinct
    pairs     array of int: the place of the query in `queries` times BLOCK_PAIRS, plus that of the passage
    unfit     array of (query_id, passage_id, content_hash, row_code, row_message): rows that no model shall see

A block comes of a group: the pairs of some documents, by hash, or of some passages where no document is known. So all
rows of a key meet, and a passage its queries. A group is cut into blocks in the order of its passages: a document with
a million queries makes many blocks and none that is large.
"""

import math
from collections.abc import Callable

from pyspark.sql import Column, DataFrame, Window, WindowSpec
from pyspark.sql import functions as F

from jobs.engine.row_codes import ROW_CODE, ROW_MESSAGE, ROW_ORDER, with_row_code
from mkdm.columns import CHUNK, CONTENT_HASH, PAIR_KEY, PASSAGE, PASSAGE_ID, QUERY, QUERY_ID
from udfs.scoring import BLOCK_PAIRS

Outcome = Callable[[Column, Column, Column], list[Column]]

GROUP_PAIRS = 4 * BLOCK_PAIRS
"""Pairs of a group about: as much of it as the last of its blocks may lack."""
_PLACE_BITS = 13
_PLACES = 1 << _PLACE_BITS
"""More than the places of queries in a block, which are counted from 1."""
PART, GROUP, BLOCK = "part", "group", "block"
QUERIES, PASSAGES, PAIRS, UNFIT = "queries", "passages", "pairs", "unfit"
GONE = -1
"""The chunk of keys that are there for themselves alone: pairs that an incremental run takes out of the scores."""


def blocks_of(
    pairs: DataFrame, groups: int, chunks: int = 1, parts: int | None = None, passages: DataFrame | None = None
) -> DataFrame:
    """The pairs as blocks, with one shuffle. The same pairs in as many groups make the same blocks.

    Args:
        pairs: query_id, passage_id, query, passage (strings, any of them null); and perhaps row_fault, of files.
        groups: of each chunk, at least 1.
        chunks: of all groups.
        parts: tasks of a chunk that make its blocks; None for one a group.
        passages: passage_id, passage: the texts, if the pairs have none. Their ids are `doc_id:hash`.

    Returns:
        The columns of blocks.
    """
    parts = min(parts or groups, groups)
    if passages is None:
        rows = _grouped(pairs, groups, chunks, parts, F.col(PASSAGE_ID))
    else:  # sorted beside them in the same tasks, without a join
        texts = passages.select(PASSAGE_ID, F.col(PASSAGE).alias("text"), F.lit(0).alias("kind"))
        both = pairs.withColumn("kind", F.lit(1)).unionByName(texts, allowMissingColumns=True)
        here = Window.partitionBy(CHUNK, PART, GROUP, PASSAGE_ID).orderBy("kind")
        text = F.first("text").over(here.rowsBetween(Window.unboundedPreceding, 0))
        both = _grouped(both, groups, chunks, parts, _document()).withColumn(PASSAGE, text)
        rows = both.where("kind = 1").drop("text", "kind")
    whole = (CHUNK, PART, GROUP)
    rows = with_row_code(rows, *whole)
    fit, number = F.col(ROW_CODE).isNull(), F.row_number().over(Window.partitionBy(*whole).orderBy(*ROW_ORDER)) - 1
    rows = rows.withColumn(BLOCK, F.floor(number / BLOCK_PAIRS))
    rows = _with_places(rows, Window.partitionBy(*whole).orderBy(*ROW_ORDER), PASSAGES, BLOCK, PASSAGE_ID, PASSAGE)
    rows = _with_places(rows, Window.partitionBy(*whole, BLOCK).orderBy(QUERY_ID, QUERY), QUERIES, QUERY_ID, QUERY)
    blocks = rows.groupBy(*whole, BLOCK).agg(
        F.collect_list(F.when(_new(QUERIES), F.struct(_place(QUERIES), QUERY_ID, QUERY))).alias(QUERIES),
        F.collect_list(F.when(_new(PASSAGES), F.struct(_place(PASSAGES), PASSAGE_ID, PASSAGE))).alias(PASSAGES),
        F.collect_list(F.when(fit, F.col(_place(PASSAGES)) * _PLACES + F.col(_place(QUERIES)))).alias(PAIRS),
        F.min(F.when(fit, F.col(_place(PASSAGES)))).alias("first"),  # they are counted over the whole group
        F.collect_list(F.when(~fit, F.struct(*PAIR_KEY, CONTENT_HASH, ROW_CODE, ROW_MESSAGE))).alias(UNFIT),
    )
    packed = F.transform(
        F.sort_array(PAIRS),
        lambda one: ((one % _PLACES - 1) * BLOCK_PAIRS + F.shiftright(one, _PLACE_BITS) - F.col("first")).cast("int"),
    )
    return blocks.select(
        *whole,
        BLOCK,
        _in_order(QUERIES, QUERY_ID, QUERY),
        _in_order(PASSAGES, PASSAGE_ID, PASSAGE),
        packed.alias(PAIRS),
        UNFIT,
    )


def _with_places(rows: DataFrame, window: WindowSpec, texts: str, *told_by: str) -> DataFrame:
    """The rows with the place of their text, counted from 1, and whether it is the first of its kind.

    Args:
        window: in which rows of one text lie together.
        told_by: the columns that tell a text from the one before.
    """
    mine = F.when(F.col(ROW_CODE).isNull(), F.xxhash64(*told_by))
    before = F.last(mine, ignorenulls=True).over(window.rowsBetween(Window.unboundedPreceding, -1))
    rows = rows.withColumn(f"new_{texts}", mine.isNotNull() & ~mine.eqNullSafe(before))
    return rows.withColumn(
        _place(texts), F.sum(_new(texts).cast("int")).over(window.rowsBetween(Window.unboundedPreceding, 0))
    )


def _new(texts: str) -> Column:
    return F.col(f"new_{texts}")


def _place(texts: str) -> str:
    return f"place_{texts}"


def _grouped(rows: DataFrame, groups: int, chunks: int, parts: int, by: Column) -> DataFrame:
    """The rows with their chunk, part and group, each part in a task of its own."""
    rows = rows.withColumn(GROUP, F.pmod(F.xxhash64(by), F.lit(groups * chunks)).cast("int"))
    chunk = F.floor(F.col(GROUP) / groups).cast("int")  # never a literal, which Spark would take for no key
    rows = rows.withColumn(CHUNK, chunk).withColumn(PART, F.pmod(GROUP, F.lit(parts)).cast("int"))
    return rows.repartition(chunks * parts, CHUNK, PART)


def _document() -> Column:
    """The document of a passage that `build-pairs` cut, which its id begins with."""
    name, hashed = F.col(PASSAGE_ID), F.length(F.substring_index(PASSAGE_ID, ":", -1))
    return F.when(name.contains(":"), F.substring(name, F.lit(1), F.length(name) - hashed)).otherwise(name)


def _in_order(texts: str, *names: str) -> Column:
    kept = F.transform(F.sort_array(texts), lambda one: F.struct(*(one[name].alias(name) for name in names)))
    return kept.alias(texts)


def keys_alone(keys: DataFrame) -> DataFrame:
    """Keys as blocks of the chunk GONE, in which nothing else is."""
    nothing = F.lit(None).cast("string")
    unfit = F.struct(
        *PAIR_KEY,
        F.lit(None).cast("bigint").alias(CONTENT_HASH),
        nothing.alias(ROW_CODE),
        nothing.alias(ROW_MESSAGE),
    )
    empty = {QUERIES: f"struct<{QUERY_ID}: string, {QUERY}: string>"}
    empty |= {PASSAGES: f"struct<{PASSAGE_ID}: string, {PASSAGE}: string>", PAIRS: "int"}
    return keys.select(
        F.lit(GONE).alias(CHUNK),
        *(F.lit(0).alias(name) for name in (PART, GROUP)),
        F.lit(0).cast("bigint").alias(BLOCK),
        *(F.expr(f"CAST(array() AS array<{kind}>)").alias(name) for name, kind in empty.items()),
        F.array(unfit).alias(UNFIT),
    )


def dealt(blocks: DataFrame, tasks: int | None) -> DataFrame:
    """The blocks, dealt to so many tasks whatever group they are of; as they lie for None."""
    return blocks.repartition(tasks, CHUNK, GROUP, BLOCK) if tasks else blocks


def block_texts() -> tuple[Column, Column, Column]:
    """What a UDF gets to see of blocks: queries, passages, and the packed pairs."""
    return F.col(f"{QUERIES}.{QUERY}"), F.col(f"{PASSAGES}.{PASSAGE}"), F.col(PAIRS)


def groups_of(rows: float) -> int:
    """Into how many groups so many rows are dealt."""
    return max(1, math.ceil(rows / GROUP_PAIRS))


def rows_in_block() -> Column:
    """How many rows came into a block."""
    return F.size(PAIRS) + F.size(UNFIT)


def keys_of(blocks: DataFrame) -> DataFrame:
    """query_id, passage_id of all rows of blocks, copies and keys that are null included."""
    keys = F.transform(PAIRS, lambda pair: F.struct(*_key(pair)))
    return blocks.select(F.inline(F.concat(keys, F.transform(UNFIT, lambda one: F.struct(*_fields(one, *PAIR_KEY))))))


def rows_of(blocks: DataFrame, *outcomes: Outcome) -> DataFrame:
    """The rows that came into blocks, with what came of them: one for each outcome.

    Args:
        blocks: with arrays of results, in the order of `pairs`.
        outcomes: columns of one row, given its number among `pairs`, of which −1 is none at all, and its row_code and
            row_message, which are null for pairs.

    Returns:
        query_id, passage_id, content_hash, and the columns of the outcomes.
    """
    return blocks.select(F.inline(F.concat(*(array for outcome in outcomes for array in _outcomes(outcome)))))


def _outcomes(outcome: Outcome) -> tuple[Column, Column]:
    nothing = F.lit(None).cast("string")

    def of_pair(pair: Column, number: Column) -> Column:
        texts = F.xxhash64(_query(pair)[QUERY], _passage(pair)[PASSAGE]).alias(CONTENT_HASH)
        return F.struct(*_key(pair), texts, *outcome(number, nothing, nothing))

    def of_unfit(one: Column) -> Column:
        kept = _fields(one, *PAIR_KEY, CONTENT_HASH)
        return F.struct(*kept, *outcome(F.lit(-1), one[ROW_CODE], one[ROW_MESSAGE]))

    return F.transform(PAIRS, of_pair), F.transform(UNFIT, of_unfit)


def _fields(one: Column, *names: str) -> list[Column]:
    return [one[name].alias(name) for name in names]


def _key(pair: Column) -> list[Column]:
    return [_query(pair)[QUERY_ID].alias(QUERY_ID), _passage(pair)[PASSAGE_ID].alias(PASSAGE_ID)]


def _query(pair: Column) -> Column:
    return F.get(QUERIES, F.floor(pair / BLOCK_PAIRS).cast("int"))


def _passage(pair: Column) -> Column:
    return F.get(PASSAGES, pair % BLOCK_PAIRS)
