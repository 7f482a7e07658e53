"""What each table of the engine is: columns, which of them are never null, checks, clustering, followable or not."""

from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from pyspark.sql.types import (
    DataType,
    DoubleType,
    FloatType,
    IntegerType,
    LongType,
    MapType,
    StringType,
    StructField,
    StructType,
    TimestampType,
)

from jobs.engine.buckets import OF_DOCUMENT

BUILT_BY = "mkdm.builtBy"
"""The table property of tables whose rows a build owns."""
PASSAGES_AT = "mkdm.passagesAt"
"""The table property of pairs without texts: where their passages are; empty for the table `passages` beside them."""
READER_VERSION = 1
"""Of Delta's protocol: what every reader can."""
PINNED = {
    "delta.minReaderVersion": str(READER_VERSION),
    "delta.enableDeletionVectors": "false",
    "delta.columnMapping.mode": "none",
    "delta.checkpointPolicy": "classic",
    "delta.enableTypeWidening": "false",
    "delta.appendOnly": "false",
}
"""Properties that a new table gets whatever the session's defaults are: other values need other readers."""


@dataclass(frozen=True)
class TableKind:
    """How a table is created.

    Attributes:
        schema: its columns; those that are not nullable are enforced by Delta.
        checks: by name, what Delta checks on every row that anybody writes.
        cluster_by: column by which OPTIMIZE clusters the rows, so that readers skip files.
        followed: whether its Change Data Feed is on, from the first version.
        built: whether a build owns all of its rows, and takes out what it did not make.
    """

    schema: StructType
    checks: dict[str, str] = field(default_factory=dict)
    cluster_by: str | None = None
    followed: bool = False
    built: bool = False

    @property
    def properties(self) -> dict[str, str]:
        """Delta's table properties."""
        return ({"delta.enableChangeDataFeed": "true"} if self.followed else {}) | (
            {BUILT_BY: "build-pairs"} if self.built else {}
        )


_ARROW = {
    DoubleType: pa.float64(),
    FloatType: pa.float32(),
    IntegerType: pa.int32(),
    LongType: pa.int64(),
    StringType: pa.string(),
    TimestampType: pa.timestamp("us", "UTC"),
}


def arrow_type(kind: DataType) -> pa.DataType:
    """A column's type in Arrow. PySpark has a function for it, whose arguments differ from Spark 4.0 to 4.2."""
    if isinstance(kind, MapType):
        return pa.map_(arrow_type(kind.keyType), arrow_type(kind.valueType))
    if isinstance(kind, StructType):
        return pa.struct([(field.name, arrow_type(field.dataType)) for field in kind])
    return _ARROW[type(kind)]


def _schema(required: dict[str, Any], optional: dict[str, Any]) -> StructType:
    fields = [StructField(name, kind, nullable=False) for name, kind in required.items()]
    return StructType(fields + [StructField(name, kind) for name, kind in optional.items()])


_TEXT, _INT, _LONG, _FLOAT, _TIME = StringType(), IntegerType(), LongType(), FloatType(), TimestampType()
_REASON = {"job": _TEXT, "error_code": _TEXT, "error_message": _TEXT, "run_id": _TEXT, "rejected_at": _TIME}
_LOAD = StructType([StructField("rows", _LONG), StructField("tokens", _LONG), StructField("seconds", DoubleType())])
"""What one loaded model did: in `runs`, by load_id, which ends in @HOST:PROCESS of its executor."""
_BUCKET_CHECK = {"bucket_of_document": f"bucket IS NULL OR bucket = {OF_DOCUMENT}"}
_SCORE_CHECK = {"score_in_0_1": "score >= 0 AND score <= 1"}
_SCORES = TableKind(
    _schema(
        {"query_id": _TEXT, "passage_id": _TEXT, "score": _FLOAT},
        {"model_version": _TEXT, "content_hash": _LONG, "run_id": _TEXT, "scored_at": _TIME},
    ),
    checks=_SCORE_CHECK,
    cluster_by="passage_id",
    followed=True,
)

TABLES = {
    "query_map": TableKind(_schema({"raw_query_id": _TEXT, "query_id": _TEXT}, {}), followed=True, built=True),
    "normalised_queries": TableKind(
        _schema({"query_id": _TEXT, "query": _TEXT}, {"frequency": DoubleType(), "segment": _TEXT}),
        followed=True,
        built=True,
    ),
    "passages": TableKind(
        _schema(
            {"passage_id": _TEXT, "doc_id": _TEXT, "ordinal": _INT, "passage": _TEXT},
            {"cut_hash": _LONG, "duplicate_of": _TEXT, "documents_sharing": _INT, "bucket": _INT},
        ),
        checks=_BUCKET_CHECK,
        cluster_by="bucket",
        followed=True,
        built=True,
    ),
    "pairs": TableKind(
        _schema({"query_id": _TEXT, "passage_id": _TEXT}, {"query": _TEXT, "bucket": _INT}),
        checks=_BUCKET_CHECK,
        cluster_by="bucket",
        followed=True,
        built=True,
    ),
    "funnel": TableKind(
        _schema({"run_id": _TEXT, "step": _TEXT, "place": _INT, "what": _TEXT, "rows": _LONG}, {}),
    ),
    "rejected_inputs": TableKind(
        _schema(
            {"input": _TEXT},
            {"query_id": _TEXT, "doc_id": _TEXT, **_REASON},
        ),
        followed=True,
    ),
    "scores": _SCORES,
    "soft_labels": TableKind(
        _schema(
            {
                "query_id": _TEXT,
                "passage_id": _TEXT,
                "teacher_id": _TEXT,
                "teacher_version": _TEXT,
                "soft_label": _FLOAT,
                "run_id": _TEXT,
            },
            {"logit": _FLOAT, "labelled_at": _TIME},
        ),
        checks={"soft_label_in_0_1": "soft_label >= 0 AND soft_label <= 1"},
        cluster_by="passage_id",
        followed=True,
    ),
    "ranked_passages": TableKind(
        _schema(
            {"query_id": _TEXT, "rank": _INT, "passage_id": _TEXT, "score": _FLOAT},
            {"model_version": _TEXT, "run_id": _TEXT},
        ),
        checks=_SCORE_CHECK | {"rank_from_1": "rank >= 1"},
        cluster_by="query_id",
        followed=True,
    ),
    "rescored": _SCORES,
    "rejected_pairs": TableKind(
        _schema(
            {},
            {"query_id": _TEXT, "passage_id": _TEXT, **_REASON},
        ),
        followed=True,
    ),
    "runs": TableKind(
        _schema(
            {"run_id": _TEXT, "job": _TEXT},
            {
                "fingerprint": _TEXT,
                "input_versions": MapType(_TEXT, _TEXT),
                "model_version": _TEXT,
                "chunk": _INT,
                "state": _TEXT,
                "rows_read": _LONG,
                "rows_written": _LONG,
                "rows_rejected": _LONG,
                "tokens": _LONG,
                "padding_ratio": DoubleType(),
                "model_loads": _LONG,
                "seconds": DoubleType(),
                "started_at": _TIME,
                "finished_at": _TIME,
                "engine_version": _TEXT,
                "settings": MapType(_TEXT, _TEXT),
                "chunks": _INT,
                "token_histogram": MapType(_INT, _LONG),
                "loads": MapType(_TEXT, _LOAD),
            },
        ),
    ),
    "evaluations": TableKind(
        _schema(
            {"evaluation_id": _TEXT, "scorer": _TEXT, "source": _TEXT, "metric": _TEXT},
            {
                "model": _TEXT,
                "model_version": _TEXT,
                "against_version": _TEXT,
                "value": DoubleType(),
                "low": DoubleType(),
                "high": DoubleType(),
                "p_value": DoubleType(),
                "pairs": _LONG,
                "queries": _LONG,
                "input_versions": MapType(_TEXT, _TEXT),
                "evaluated_at": _TIME,
                "engine_version": _TEXT,
            },
        ),
    ),
}
