"""Checks golden labels and the pairs that they belong to, and finds the column that groups them."""

from dataclasses import dataclass

from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import BooleanType, NumericType, StringType

from jobs.engine import PinnedPairs, Table, check_pairs, plain_number, require_columns, require_ids, require_unchanged
from mkdm.columns import GOLDEN_LABEL, PAIR_KEY
from mkdm.errors import InputError

GROUP = "_group"
"""The column by which pairs are grouped, under whatever name it came; absent where they are not."""


@dataclass(frozen=True)
class CheckedGoldenLabels:
    """Golden labels as they stood at one version, a row per key.

    Attributes:
        rows: query_id, passage_id (strings), golden_label (int, 0 or 1), and GROUP if it comes from here.
        version: what was pinned, as in `PinnedPairs`.
        count: how many keys.
    """

    table: Table
    rows: DataFrame
    version: str
    count: int

    def require_unchanged(self) -> None:
        """Make sure that what was read is what was pinned.

        Raises:
            InputError: a file changed since.
        """
        require_unchanged(self.table.spark, self.table.location, self.version)


def read_grouped(
    pairs: tuple[Table, DataFrame, str], golden_labels: tuple[Table, DataFrame, str], by: str | None
) -> tuple[PinnedPairs, CheckedGoldenLabels, str | None]:
    """Check pairs and golden labels, and find the column that groups them in either.

    Args:
        pairs: the table, its rows and version, from `jobs.engine.pairs.read_pinned`; so too for golden_labels.
        by: its name; None takes `source` if there is such a column.

    Returns:
        The pairs, with GROUP after their columns if it comes from there; the golden labels; the column's name.

    Raises:
        InputError: a column is missing or of the wrong type, or golden labels are no golden labels.
    """
    (table, rows, version), (golden_table, golden_rows, golden_version) = pairs, golden_labels
    name = by or "source"
    in_golden, in_pairs = name in golden_rows.columns, name in rows.columns
    if by and not in_golden and not in_pairs:
        raise InputError(
            f"neither {golden_table.location} nor {table.location} has the column {by} of --by; they have "
            f"{', '.join(dict.fromkeys([*golden_rows.columns, *rows.columns]))}"
        )
    group = F.coalesce(F.nullif(F.col(name).cast("string"), F.lit("")), F.lit("none")).alias(GROUP)
    mine = () if in_golden or not in_pairs else (GROUP,)
    checked = check_pairs(rows.select("*", group) if mine else rows, table.location, keep=mine)
    labels = _check_golden_labels(golden_rows.select("*", group) if in_golden else golden_rows, golden_table.location)
    count = _count(labels, golden_table.location)
    kept = labels.select(*PAIR_KEY, F.col(GOLDEN_LABEL).cast("int"), *([GROUP] if in_golden else []))
    found = CheckedGoldenLabels(golden_table, kept, golden_version, count)
    return PinnedPairs(table, checked, version), found, name if in_golden or in_pairs else None


def _check_golden_labels(rows: DataFrame, where: str) -> DataFrame:
    """A row per key: its least and greatest golden label, how many of its rows are neither 0 nor 1, and one of them."""
    require_columns(rows, (*PAIR_KEY, GOLDEN_LABEL), where)
    kind = rows.schema[GOLDEN_LABEL].dataType
    if not isinstance(kind, NumericType | BooleanType | StringType):
        raise InputError(f"column {GOLDEN_LABEL} of {where} is {kind.simpleString()}; it must be a number, 0 or 1")
    require_ids(rows, PAIR_KEY, where)
    value = plain_number(rows, GOLDEN_LABEL)
    wrong = ~F.coalesce(value.isin(0.0, 1.0), F.lit(False))
    group = [F.min(GROUP).alias(GROUP)] if GROUP in rows.columns else []
    return rows.groupBy(*(F.col(name).cast("string").alias(name) for name in PAIR_KEY)).agg(
        F.min(value).alias(GOLDEN_LABEL),
        F.max(value).alias("greatest"),
        F.count_if(wrong).alias("wrong"),
        F.min(F.when(wrong, F.coalesce(F.col(GOLDEN_LABEL).cast("string"), F.lit("null")))).alias("example"),
        *group,
    )


def _count(labels: DataFrame, where: str) -> int:
    """How many keys have a golden label.

    Raises:
        InputError: none has, one is neither 0 nor 1, or two of one key disagree.
    """
    keyed = F.col(PAIR_KEY[0]).isNotNull() & F.col(PAIR_KEY[1]).isNotNull()
    found = labels.agg(
        F.count("*").alias("keys"),
        F.sum("wrong").alias("wrong"),
        F.min(F.when(F.col("wrong") > 0, F.struct(*PAIR_KEY, "example"))).alias("first_wrong"),
        F.count_if(keyed & (F.col(GOLDEN_LABEL) != F.col("greatest"))).alias("disagree"),
        F.min(F.when(keyed & (F.col(GOLDEN_LABEL) != F.col("greatest")), F.struct(*PAIR_KEY))).alias("first_disagree"),
    ).collect()[0]
    if not found["keys"]:
        raise InputError(f"{where} has no row: there is no golden label to evaluate against")
    if found["wrong"]:
        query_id, passage_id, example = found["first_wrong"]
        raise InputError(
            f"{found['wrong']:,} golden labels of {where} are neither 0 nor 1, such as {example} of the pair "
            f"({query_id}, {passage_id}): correct or remove them"
        )
    if found["disagree"]:
        query_id, passage_id = found["first_disagree"]
        raise InputError(
            f"{found['disagree']:,} pairs have golden labels in {where} that disagree, such as ({query_id}, "
            f"{passage_id}): leave one golden label for each"
        )
    return int(found["keys"])
