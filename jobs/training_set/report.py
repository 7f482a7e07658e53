"""What a training set has: counted once, kept in its manifest, shown at the end of the export."""

from dataclasses import dataclass
from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from jobs.engine import Totals
from jobs.training_set.splits import LEFT_OUT, SPLIT
from mkdm.columns import ERROR_CODE, GOLDEN_LABEL, QUERY_ID
from udfs.training_rows import LENGTH, NO_GOLDEN_LABEL, SOURCE, TrainingSet, soft_label_column

_SUMS = ("rows", "golden_labels", "positives", "tokens")


def counts_of(
    staged: DataFrame, exported: DataFrame, splits: list[str], sources: list[str], teachers: list[str]
) -> dict[str, Any]:
    """The `counts` of a manifest.

    Args:
        staged: what `jobs.export_training_set.transform` returned.
        exported: those of its rows that are written.

    Returns:
        exported, left_out, rejected, golden_labels, positives and tokens (int); rejects (by error_code); soft_labels
        (by teacher); splits and sources (by name, each with rows, queries, golden_labels, positives, tokens and
        soft_labels).
    """
    fates = staged.groupBy(ERROR_CODE, LEFT_OUT).count().collect()
    rejects = {row[ERROR_CODE]: row["count"] for row in fates if row[ERROR_CODE] is not None}
    source = F.col(SOURCE) if sources != [""] else F.lit("")
    by_split = _counted(exported, F.col(SPLIT), splits, teachers)
    return {
        "exported": sum(row["count"] for row in fates if row[ERROR_CODE] is None and not row[LEFT_OUT]),
        "left_out": sum(row["count"] for row in fates if row[ERROR_CODE] is None and row[LEFT_OUT]),
        "rejected": sum(rejects.values()),
        "rejects": dict(sorted(rejects.items())),
        **{name: sum(part[name] for part in by_split.values()) for name in _SUMS[1:]},
        "soft_labels": {name: sum(part["soft_labels"][name] for part in by_split.values()) for name in teachers},
        "splits": by_split,
        "sources": _counted(exported, source, sources, teachers),
    }


def totals_of(counts: dict[str, Any]) -> Totals:
    """The same as the ledger keeps it."""
    return Totals(
        rows_read=counts["exported"] + counts["left_out"] + counts["rejected"],
        rows_written=counts["exported"],
        rows_rejected=counts["rejected"],
        tokens=counts["tokens"],
    )


def _counted(rows: DataFrame, by: Column, names: list[str], teachers: list[str]) -> dict[str, dict[str, Any]]:
    golden = F.col(GOLDEN_LABEL)
    counted = rows.groupBy(by.alias("name")).agg(
        F.count("*").alias("rows"),
        F.count_distinct(QUERY_ID).alias("queries"),
        F.count_if(golden != NO_GOLDEN_LABEL).alias("golden_labels"),
        F.count_if(golden == 1).alias("positives"),
        F.sum(LENGTH).alias("tokens"),
        *(
            F.count_if(~F.isnan(soft_label_column(number))).alias(f"teacher {number}")
            for number in range(len(teachers))
        ),
    )
    found = {row["name"]: row for row in counted.collect()}
    return {
        name: {column: found[name][column] if name in found else 0 for column in (*_SUMS, "queries")}
        | {
            "soft_labels": {
                teacher: found[name][f"teacher {number}"] if name in found else 0
                for number, teacher in enumerate(teachers)
            }
        }
        for name in names
    }


@dataclass(frozen=True)
class TrainingSetReport:
    """A training set that is there. Its `str` is the table that the command prints."""

    training_set: TrainingSet

    def __str__(self) -> str:
        whole = self.training_set
        counts, files = whole.counts, whole.files
        groups = [rows for file in files for rows in file.row_groups]
        rows = [
            ("pairs exported", f"{counts['exported']:,}"),
            ("no label at all", f"{counts['left_out']:,} left out"),
            ("rejected", f"{counts['rejected']:,}"),
            *((f"  {code}", f"{count:,}") for code, count in counts["rejects"].items()),
            *((f"split {name}", _line(part)) for name, part in counts["splits"].items()),
            *((f"source {name}", _line(part)) for name, part in counts["sources"].items() if name),
            *((f"teacher {name}", f"{count:,} soft labels") for name, count in counts["soft_labels"].items()),
            ("tokens of a pair", f"{counts['tokens'] / max(1, counts['exported']):,.1f} of {whole.max_length}"),
            ("files", f"{len(files):,} with {min(groups):,} to {max(groups):,} rows, one row group each"),
            ("MB", f"{sum(file.bytes for file in files) / 1e6:,.1f}"),
            ("tokenizer", whole.tokenizer),
            *((f"version of {name}", version) for name, version in whole.input_versions.items()),
            ("run", whole.run_id),
            ("training set", whole.folder),
        ]
        width = max(18, *(len(name) + 2 for name, _ in rows))
        return "\n".join(f"{name:<{width}}{value}" for name, value in rows)


def _line(part: dict[str, Any]) -> str:
    return (
        f"{part['rows']:,} pairs of {part['queries']:,} queries, {part['golden_labels']:,} golden labels "
        f"({part['positives']:,} positive)"
    )
