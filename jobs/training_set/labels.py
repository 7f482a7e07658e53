"""The labels of pairs, as a training set takes them: one golden label and one soft label per teacher for each key."""

from dataclasses import dataclass

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from jobs.engine import (
    COMPLETE,
    ROW_CODE,
    ROW_MESSAGE,
    FileOptions,
    Ledger,
    Table,
    is_file,
    plain_number,
    read_pinned,
    require_columns,
    require_ids,
    say,
)
from mkdm.columns import GOLDEN_LABEL, PAIR_KEY, QUERY_ID, RUN_ID, SOFT_LABEL, TEACHER_ID, TEACHER_VERSION
from mkdm.errors import InputError, RejectCode
from udfs.training_rows import NO_GOLDEN_LABEL, SOURCE, soft_label_column

LABEL_JOB = "label"
NOTHING = "none"
"""The version of an input that is not there."""
GOLDEN_INVALID, GOLDEN_CONFLICTS, LABELLED = "golden_invalid", "golden_conflicts", "labelled"


@dataclass(frozen=True)
class GoldenLabels:
    """Golden labels at one version.

    Attributes:
        by_key: query_id, passage_id, golden_label (0, 1 or null), golden_invalid, golden_conflicts (booleans), and
            source if the input has it; each key once. None where there is no input.
        version: what was pinned.
    """

    by_key: DataFrame | None
    version: str


@dataclass(frozen=True)
class SoftLabels:
    """Soft labels of the chosen teachers at one version.

    Attributes:
        by_key: query_id, passage_id and a soft label per teacher, null where it has none; each key once. None where
            no teacher was chosen.
        teachers: by id, in order, the version of each teacher.
        runs: the labelling runs that counted, joined by commas; empty where all rows did.
    """

    by_key: DataFrame | None
    teachers: dict[str, str]
    version: str
    runs: str


def read_golden_labels(
    table: Table, version: int | None, named: bool, options: FileOptions | None = None
) -> GoldenLabels:
    """Read golden labels from a Delta table or files.

    Args:
        options: what is told of files.
        named: whether the user named the input, which then must be there.

    Raises:
        InputError: it is not there, or lacks a column.
    """
    if not (named or version is not None or is_file(table) or table.exists()):
        say(f"no golden labels at {table.location}: all pairs go without")
        return GoldenLabels(None, NOTHING)
    rows, pinned = read_pinned(table.spark, table, version, "--golden-labels-version", options)
    require_columns(rows, (*PAIR_KEY, GOLDEN_LABEL), table.location)
    require_ids(rows, PAIR_KEY, table.location)
    number = plain_number(rows, GOLDEN_LABEL)
    valid = F.when(number.isin(0.0, 1.0), number.cast("tinyint"))
    first_source = [F.min(F.col(SOURCE).cast("string")).alias(SOURCE)] if SOURCE in rows.columns else []
    by_key = rows.groupBy(*_string_keys()).agg(
        F.min(valid).alias(GOLDEN_LABEL),
        (F.count(GOLDEN_LABEL) > F.count(valid)).alias(GOLDEN_INVALID),
        F.coalesce(F.min(valid) != F.max(valid), F.lit(False)).alias(GOLDEN_CONFLICTS),
        *first_source,
    )
    return GoldenLabels(by_key, pinned)


def read_soft_labels(table: Table, version: int | None, named: bool, ledger: Ledger, teachers: str) -> SoftLabels:
    """Read the newest soft label of each pair by each chosen teacher, in its newest version.

    Rows of a labelling run count when it is complete; all do where the ledger knows no such run.

    Args:
        named: whether the user named the input, which then must be there.
        teachers: all, none, or ids joined by commas.

    Raises:
        InputError: it is not there, lacks a column, has no label of a teacher, or one outside [0, 1].
    """
    if teachers == "none":
        return SoftLabels(None, {}, NOTHING, "")
    there = is_file(table) or table.exists()
    if teachers == "all" and not (named or version is not None or there):
        say(f"no soft labels at {table.location}: all pairs go without")
        return SoftLabels(None, {}, NOTHING, "")
    rows, pinned = read_pinned(table.spark, table, version, "--soft-labels-version")
    require_columns(rows, (*PAIR_KEY, TEACHER_ID, TEACHER_VERSION, SOFT_LABEL, RUN_ID, "labelled_at"), table.location)
    require_ids(rows, PAIR_KEY, table.location)
    number = F.coalesce(plain_number(rows, SOFT_LABEL), F.when(F.col(SOFT_LABEL).isNotNull(), float("nan")))
    rows = rows.withColumn(SOFT_LABEL, number)  # of text files all columns are strings
    states = ledger.states(job=LABEL_JOB)
    complete = sorted(state.run.run_id for state in states if state.state == COMPLETE)
    if states:
        rows = rows.where(F.col(RUN_ID).isin(complete))
    else:
        say(f"{ledger.table.location} knows no labelling run: all rows of {table.location} count")
    chosen = _chosen_teachers(rows, table, teachers)
    if not chosen:
        say(f"no soft labels in {table.location}: all pairs go without")
        return SoftLabels(None, {}, pinned, "")
    label = F.col(SOFT_LABEL).cast("float")
    newest = F.struct(_age(), F.col(RUN_ID).alias(RUN_ID), label.alias(SOFT_LABEL))
    by_key = rows.groupBy(*_string_keys()).agg(
        *(
            F.max(F.when(_is(teacher, teacher_version), newest))[SOFT_LABEL].alias(soft_label_column(number))
            for number, (teacher, teacher_version) in enumerate(chosen.items())
        )
    )
    return SoftLabels(by_key, chosen, pinned, ",".join(complete) if states else "")


def with_labels(pairs: DataFrame, golden: GoldenLabels, soft: SoftLabels) -> tuple[DataFrame, list[Column]]:
    """Join pairs with their labels.

    Args:
        pairs: as `jobs.engine.row_codes.with_row_code` returns them, and perhaps with a source.

    Returns:
        The pairs with `labelled` (whether they have any label), and with faults of golden labels in their row_code; and
        the columns to select of them: source, golden_label (-1 for none), a soft label per teacher (NaN for none).
    """
    sources = [F.when(F.contains(F.col(QUERY_ID), F.lit(":")), F.substring_index(QUERY_ID, ":", 1)), F.lit("")]
    if SOURCE in pairs.columns:
        pairs = pairs.withColumn("pair_source", F.col(SOURCE).cast("string")).drop(SOURCE)
        sources.insert(0, F.col("pair_source"))
    if golden.by_key is None:
        nothing = F.lit(None)
        absent = {GOLDEN_LABEL: nothing.cast("tinyint"), GOLDEN_INVALID: F.lit(False), GOLDEN_CONFLICTS: F.lit(False)}
        pairs = pairs.withColumns(absent)
    else:
        pairs = pairs.join(golden.by_key, list(PAIR_KEY), "left")
        if SOURCE in golden.by_key.columns:
            sources.insert(0, F.col(SOURCE))
    if soft.by_key is not None:
        pairs = pairs.join(soft.by_key, list(PAIR_KEY), "left")
    code = (
        F.when(F.col(ROW_CODE).isNotNull(), F.col(ROW_CODE))
        .when(F.col(GOLDEN_INVALID), RejectCode.INVALID_GOLDEN_LABEL.value)
        .when(F.col(GOLDEN_CONFLICTS), RejectCode.CONFLICTING_GOLDEN_LABEL.value)
    )
    message = (
        F.when(F.col(ROW_CODE).isNotNull(), F.col(ROW_MESSAGE))
        .when(F.col(GOLDEN_INVALID), "a golden label of the pair is neither 0 nor 1")
        .when(F.col(GOLDEN_CONFLICTS), "golden labels of the pair disagree")
    )
    columns = [soft_label_column(number) for number in range(len(soft.teachers))]
    labelled = F.coalesce(*(F.col(name).cast("double") for name in (GOLDEN_LABEL, *columns))).isNotNull()
    return pairs.withColumns({ROW_CODE: code, ROW_MESSAGE: message, LABELLED: labelled}), [
        F.coalesce(*sources).alias(SOURCE),
        F.coalesce(GOLDEN_LABEL, F.lit(NO_GOLDEN_LABEL)).cast("tinyint").alias(GOLDEN_LABEL),
        *(F.coalesce(name, F.lit(float("nan"))).cast("float").alias(name) for name in columns),
    ]


def _chosen_teachers(rows: DataFrame, table: Table, teachers: str) -> dict[str, str]:
    """The chosen teachers, each with the version that labelled last."""
    found = rows.groupBy(TEACHER_ID).agg(
        F.max(F.struct(_age(), F.col(TEACHER_VERSION).alias("version")))["version"].alias("version"),
        F.count_if(~F.col(SOFT_LABEL).between(0, 1) | F.isnan(F.col(SOFT_LABEL).cast("double"))).alias("outside"),
    )
    known = {row[TEACHER_ID]: row for row in found.orderBy(TEACHER_ID).collect()}
    wanted = list(known) if teachers == "all" else list(dict.fromkeys(name.strip() for name in teachers.split(",")))
    there = ", ".join(map(str, known)) or "none of a complete run"
    for teacher in wanted:
        if teacher not in known:
            raise InputError(f"{table.location} has no soft label of teacher {teacher!r}; it has {there}")
        if known[teacher]["outside"]:
            raise InputError(
                f"{known[teacher]['outside']:,} soft labels of teacher {teacher} in {table.location} lie outside "
                f"[0, 1], so they are no probabilities: correct or remove them"
            )
    return {teacher: known[teacher]["version"] for teacher in wanted}


def _age() -> Column:
    return F.coalesce(F.col("labelled_at").cast("timestamp"), F.timestamp_seconds(F.lit(0))).alias("age")


def _is(teacher: str, version: str) -> Column:
    return (F.col(TEACHER_ID) == teacher) & F.col(TEACHER_VERSION).eqNullSafe(version)


def _string_keys() -> list[Column]:
    return [F.col(name).cast("string").alias(name) for name in PAIR_KEY]
