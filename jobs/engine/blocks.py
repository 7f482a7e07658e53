"""From rows of pairs to blocks, each text in it once, and from a block's results back to rows.

A row of blocks has, besides what tells it (chunk, part, group, block):

    queries   array of (query_id, query), distinct
    passages  array of (passage_id, passage), distinct
    pairs     array of int: the place of the query in `queries` times BLOCK_PAIRS, plus that of the passage
    unfit     array of (query_id, passage_id, content_hash, row_code, row_message): rows that no model shall see

A block comes of a group: the pairs of some documents, or of some passages where no document is known; which, tells
`jobs.engine.grouping`. So all rows of a key meet, and a passage its queries. A group of more pairs than a block is cut
in the order of its passages: a document with a million queries makes many blocks and none that is large.
"""

from collections.abc import Callable

from pyspark.sql import Column, DataFrame, Window, WindowSpec
from pyspark.sql import functions as F

from jobs.engine.grouping import GROUP, PART, Grouping
from jobs.engine.row_codes import (
    COPY_ORDER,
    PASSAGE_HASH,
    QUERY_HASH,
    ROW_CODE,
    ROW_MESSAGE,
    coded,
    with_copy_order,
)
from mkdm.columns import CHUNK, CONTENT_HASH, PAIR_KEY, PASSAGE, PASSAGE_ID, QUERY, QUERY_ID
from udfs.scoring import BLOCK_PAIRS

Outcome = Callable[[Column, Column, Column], list[Column]]

_PLACE_BITS = 13
_PLACES = 1 << _PLACE_BITS
"""More than the places of queries in a block, which are counted from 1."""
BLOCK = "block"
_WHOLE = (GROUP, CHUNK, PART)
"""What tells a group; first what tells most, by which Spark's sort compares first."""
_IS_PAIR = "is_pair"
QUERIES, PASSAGES, PAIRS, UNFIT = "queries", "passages", "pairs", "unfit"
GONE = -1
"""The chunk of keys that are there for themselves alone: pairs that an incremental run takes out of the scores."""


def blocks_of(
    pairs: DataFrame, grouping: Grouping, passages: DataFrame | None = None, by_document: bool = False
) -> DataFrame:
    """The pairs as blocks, with one shuffle: those of a part in one task. The same groups make the same blocks.

    Args:
        pairs: query_id, passage_id, query, passage (strings, any of them null); and perhaps row_fault, of files.
        grouping: which chunk, group and part a pair is of.
        passages: passage_id, passage: the texts, if the pairs have none.
        by_document: whether the ids of passages begin with their document, as a build makes them.

    Returns:
        The columns of blocks.
    """
    rows = grouping.placed(pairs.withColumn(_IS_PAIR, F.lit(True)), by_document)
    if passages is not None:  # they lie before their pairs in the same tasks, so that no join is needed
        texts = passages.select(PASSAGE_ID, PASSAGE, F.lit(False).alias(_IS_PAIR))
        texts = grouping.placed(texts, by_document, texts=True)
        rows = rows.drop(PASSAGE).unionByName(texts, allowMissingColumns=True)
    rows = with_copy_order(rows.repartition(grouping.tasks, *grouping.dealt_by))
    # One order serves all windows up to that of the queries: Spark sorts the rows once, most of them without a passage.
    place = (PASSAGE_ID, _IS_PAIR, QUERY_ID)
    in_group = Window.partitionBy(*_WHOLE).orderBy(*place, *COPY_ORDER)
    rows = coded(rows, *_WHOLE, *place)
    number = F.sum(F.col(_IS_PAIR).cast("int")).over(in_group.rowsBetween(Window.unboundedPreceding, 0)) - 1
    rows = rows.withColumn(BLOCK, F.floor(number / BLOCK_PAIRS))
    rows = _with_places(rows, in_group, PASSAGES, BLOCK, PASSAGE_ID, PASSAGE_HASH)
    if passages is not None:
        of_passage = Window.partitionBy(*_WHOLE, PASSAGE_ID).orderBy(*place[1:], *COPY_ORDER)
        rows = rows.withColumn(PASSAGE, F.first(PASSAGE).over(of_passage.rowsBetween(Window.unboundedPreceding, 0)))
        rows = rows.where(_IS_PAIR)
    fit, new = F.col(ROW_CODE).isNull(), _new(PASSAGES)
    unfit = F.struct(*PAIR_KEY, F.xxhash64(QUERY, PASSAGE).alias(CONTENT_HASH), ROW_CODE, ROW_MESSAGE)
    rows = rows.select(
        *_WHOLE,
        BLOCK,
        QUERY_ID,
        QUERY,
        QUERY_HASH,
        ROW_CODE,
        F.when(fit, F.col(_place(PASSAGES))).alias(_place(PASSAGES)),
        F.when(new, F.struct(_place(PASSAGES), PASSAGE_ID, PASSAGE)).alias(PASSAGES),
        F.when(~fit, unfit).alias(UNFIT),
    )
    in_block = Window.partitionBy(*_WHOLE, BLOCK).orderBy(QUERY_ID, QUERY_HASH)
    rows = _with_places(rows, in_block, QUERIES, QUERY_ID, QUERY_HASH)
    blocks = rows.groupBy(*_WHOLE, BLOCK).agg(
        F.collect_list(F.when(_new(QUERIES), F.struct(_place(QUERIES), QUERY_ID, QUERY))).alias(QUERIES),
        F.collect_list(PASSAGES).alias(PASSAGES),
        F.collect_list(F.when(fit, F.col(_place(PASSAGES)) * _PLACES + F.col(_place(QUERIES)))).alias(PAIRS),
        F.min(_place(PASSAGES)).alias("first"),  # they are counted over the whole group
        F.collect_list(UNFIT).alias(UNFIT),
    )
    packed = F.transform(
        F.sort_array(PAIRS),
        lambda one: ((one % _PLACES - 1) * BLOCK_PAIRS + F.shiftright(one, _PLACE_BITS) - F.col("first")).cast("int"),
    )
    return blocks.select(
        *_WHOLE,
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
    """The blocks, dealt to so many tasks whatever group they are of; as they lie for None, or for a single one."""
    return blocks.repartition(tasks, CHUNK, GROUP, BLOCK) if tasks and tasks > 1 else blocks


def block_texts() -> tuple[Column, Column, Column]:
    """What a UDF gets to see of blocks: queries, passages, and the packed pairs."""
    return F.col(f"{QUERIES}.{QUERY}"), F.col(f"{PASSAGES}.{PASSAGE}"), F.col(PAIRS)


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
