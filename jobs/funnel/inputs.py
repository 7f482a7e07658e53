"""Reads queries, documents and query_documents at pinned versions, and tells which rows are at fault and why."""

from dataclasses import dataclass
from datetime import UTC, datetime

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F
from pyspark.sql.types import DataType, NumericType, StringType

from jobs.engine import (
    FileOptions,
    Run,
    Table,
    fault_code,
    fault_message,
    plain_number,
    read_pinned,
    require_columns,
    require_ids,
    require_unchanged,
)
from mkdm.columns import DOC_ID, DOC_RANK, ERROR_CODE, ERROR_MESSAGE, FREQUENCY, QUERY, QUERY_ID, ROW_FAULT, TEXT
from mkdm.errors import InputError, RejectCode
from udfs.passages import VISIBLE

QUERIES, DOCUMENTS, QUERY_DOCUMENTS = "queries", "documents", "query_documents"
KEYS = {QUERIES: (QUERY_ID,), DOCUMENTS: (DOC_ID,), QUERY_DOCUMENTS: (QUERY_ID, DOC_ID)}
_TEXTS = {QUERIES: (QUERY,), DOCUMENTS: (TEXT,), QUERY_DOCUMENTS: ()}
_BEIR_ID, _BEIR_TITLE = "_id", "title"
_NUMBERS = {QUERIES: (), DOCUMENTS: (), QUERY_DOCUMENTS: (DOC_RANK,)}

Fault = tuple[RejectCode, Column, Column | str]
"""A code, when a row has that fault, and what to say then."""


@dataclass(frozen=True)
class FunnelInput:
    """One of the three inputs as it stood at one version.

    Attributes:
        rows: its key (strings), the columns that the funnel reads, and row_fault where rows of files are at fault.
        version: what was pinned, as in `jobs.engine.PinnedPairs`.
    """

    name: str
    table: Table
    rows: DataFrame
    version: str

    def require_unchanged(self) -> None:
        """Make sure that what was read is what was pinned.

        Raises:
            InputError: a file changed since.
        """
        require_unchanged(self.table.spark, self.table.location, self.version)


def read_input(name: str, table: Table, version: int | None, options: FileOptions | None = None) -> FunnelInput:
    """Read an input from a Delta table or files, ours or BEIR's.

    Args:
        options: what is told of files.

    Raises:
        InputError: nothing there, no such version, or a column is missing or of the wrong type.
    """
    rows, pinned = read_pinned(table.spark, table, version, f"--{name.replace('_', '-')}-version", options, "keep")
    where, rows = table.location, with_our_names(rows, name)
    require_columns(rows, (*KEYS[name], *_TEXTS[name], *_NUMBERS[name]), where)
    numbers = _NUMBERS[name] or ((FREQUENCY,) if name == QUERIES and FREQUENCY in rows.columns else ())
    require_ids(rows, KEYS[name], where)
    wanted_of: tuple[tuple[tuple[str, ...], tuple[type[DataType], ...], str], ...] = (
        (_TEXTS[name], (StringType,), "string"),
        (numbers, (NumericType, StringType), "a number"),
    )
    for columns, kinds, wanted in wanted_of:
        for column in columns:
            kind = rows.schema[column].dataType
            if not isinstance(kind, kinds):
                raise InputError(f"column {column} of {where} is {kind.simpleString()}; it must be {wanted}")
    return FunnelInput(
        name,
        table,
        rows.select(
            *(F.col(column).cast("string") for column in (*KEYS[name], *_TEXTS[name])),
            *(_number(rows, column) for column in numbers),
            *([ROW_FAULT] if ROW_FAULT in rows.columns else []),
        ),
        pinned,
    )


def with_our_names(rows: DataFrame, name: str) -> DataFrame:
    """Rows of BEIR's corpus (_id, title, text) or queries (_id, text) with our names; other rows as they are.

    A document's text is its title, a space, and its text, as BEIR's own models read it.
    """
    key, text = KEYS[name][0], TEXT if name == DOCUMENTS else QUERY
    names = set(rows.columns)
    if name == QUERY_DOCUMENTS or not {_BEIR_ID, TEXT} <= names or key in names or (text != TEXT and text in names):
        return rows
    if name == DOCUMENTS and _BEIR_TITLE in names:
        title = F.coalesce(F.trim(F.col(_BEIR_TITLE).cast("string")), F.lit(""))
        joined = F.when(title != "", F.concat(title, F.lit(" "), TEXT)).otherwise(F.col(TEXT))
        rows = rows.withColumn(TEXT, joined)
    return rows.withColumnsRenamed({_BEIR_ID: key, TEXT: text})


def _number(rows: DataFrame, column: str) -> Column:
    """The column as double: null stays null, and what is no number is NaN. All columns of CSV files are strings."""
    unread = F.when(F.col(column).isNotNull(), F.lit(float("nan")))
    return F.coalesce(plain_number(rows, column), unread).alias(column)


def told(number: Column) -> Column:
    """A number as a message tells it."""
    return F.when(number.isNull(), "null").when(F.isnan(number), "no number").otherwise(number.cast("string"))


def with_faults(rows: DataFrame, name: str, *faults: Fault, first: Column | None = None) -> DataFrame:
    """The rows with error_code and error_message, null where a row has no fault.

    Faults of files come first, then null keys, then `faults` in their order, then repeated keys: of rows with the same
    key, one is without this fault, and always the same one.

    Args:
        rows: as `read_input` gives them, and columns that the faults need.
        name: which input they are of.
        first: what orders rows of the same key, the least one first, before all else.
    """
    keys = KEYS[name]
    null_key = F.lit(False)
    for key in keys:
        null_key = null_key | F.col(key).isNull()
    known: list[Fault] = [(RejectCode.NULL_KEY, null_key, f"{' or '.join(keys)} is null"), *faults]
    code, message = _chosen(known, 0), _chosen(known, 2)
    if ROW_FAULT in rows.columns:
        fault = F.col(ROW_FAULT)
        code, message = F.coalesce(fault_code(fault), code), F.coalesce(fault_message(fault), message)
    rows = rows.withColumn(ERROR_CODE, code).withColumn(ERROR_MESSAGE, message).drop(ROW_FAULT)
    fit_first: list[Column | str] = [
        F.col(ERROR_CODE).isNotNull(),
        *([] if first is None else [first]),
        F.xxhash64(*sorted(rows.columns)),
        *sorted(rows.columns),
    ]
    copy = F.row_number().over(Window.partitionBy(*keys).orderBy(*fit_first))
    again = F.col(ERROR_CODE).isNull() & (F.col("_copy") > 1)
    repeated: list[Fault] = [
        (RejectCode.DUPLICATE_KEY, again, f"another row of {name} has the same {' and '.join(keys)}")
    ]
    return (
        rows.withColumn("_copy", copy)
        .withColumn(ERROR_MESSAGE, F.coalesce(ERROR_MESSAGE, _chosen(repeated, 2)))
        .withColumn(ERROR_CODE, F.coalesce(ERROR_CODE, _chosen(repeated, 0)))
        .drop("_copy")
    )


def _chosen(faults: list[Fault], part: int) -> Column:
    chosen = F.lit(None).cast("string")
    for fault in reversed(faults):
        value = fault[part]
        chosen = F.when(fault[1], value if isinstance(value, Column) else F.lit(str(value))).otherwise(chosen)
    return chosen


def text_faults(column: str, most: int, length: Column | None = None) -> list[Fault]:
    """The faults of a text that no passage or query can come of.

    Args:
        column: query, or text.
        most: its characters at most.
        length: its characters, if not those that the column has now.
    """
    of_query = column == QUERY
    value, flag = F.col(column), f"--max-{'query' if of_query else 'document'}-characters"
    length = F.length(value) if length is None else length
    size = F.concat(F.format_number(length, 0), F.lit(f" characters, more than {flag} {most:,}"))
    return [
        (RejectCode.NULL_QUERY if of_query else RejectCode.NULL_TEXT, value.isNull(), f"{column} is null"),
        (RejectCode.INVALID_TEXT, ~F.is_valid_utf8(value), f"{column} is not valid UTF-8"),
        (
            RejectCode.QUERY_TOO_LONG if of_query else RejectCode.TEXT_TOO_LONG,
            length > most,
            F.concat(F.lit(f"{column} has "), size),
        ),
        (
            RejectCode.EMPTY_QUERY if of_query else RejectCode.EMPTY_TEXT,
            ~F.coalesce(value.rlike(f"(?U){VISIBLE}"), F.lit(False)),
            f"{column} is empty",
        ),
    ]


def rejected_inputs(coded: DataFrame, name: str, run: Run) -> DataFrame:
    """The rows at fault, as `rejected_inputs` has them."""
    keys = [F.col(key) if key in coded.columns else F.lit(None).cast("string").alias(key) for key in (QUERY_ID, DOC_ID)]
    return coded.where(F.col(ERROR_CODE).isNotNull()).select(
        F.lit(name).alias("input"),
        *keys,
        F.lit(run.job).alias("job"),
        ERROR_CODE,
        ERROR_MESSAGE,
        F.lit(run.run_id).alias("run_id"),
        F.lit(datetime.now(UTC)).alias("rejected_at"),
    )
