"""Reads TREC's files and BEIR folders through Spark, from wherever tables can be, and writes TREC runs."""

import hashlib
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs.engine import FOREIGN, Table, read_pinned, require_columns, told
from jobs.funnel import DOCUMENTS, QUERIES, with_our_names
from mkdm.columns import DOC_ID, PASSAGE, PASSAGE_ID, QUERY, QUERY_ID, TEXT
from mkdm.errors import ConfigError, InputError, refuse_credentials
from udfs.quality import TrecRun, ranking, run_lines


def read_lines(spark: SparkSession, location: str) -> tuple[list[bytes], str]:
    """The lines of a text file, packed by gzip or bzip2 or not, and the version that stands for them.

    Raises:
        ConfigError: the location holds credentials.
        InputError: it cannot be read, or is more than one file.
    """
    refuse_credentials(location, "the location of judgments or a run")
    try:
        text = spark.read.text(location, lineSep="\n").select(
            F.col("value").cast("binary").alias("line"),
            F.col("_metadata.file_path").alias("file"),
            F.col("_metadata.file_block_start").alias("block"),
            F.monotonically_increasing_id().alias("number"),
        )
        found = text.toArrow()
    except FOREIGN as error:
        raise InputError(f"cannot read {location}: {told(error)}") from error
    if len(found["file"].unique()) > 1:
        raise InputError(f"{location} is several files: name one")
    lines: list[bytes] = found.sort_by([("block", "ascending"), ("number", "ascending")])["line"].to_pylist()
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line + b"\n")
    return lines, f"files-{digest.hexdigest()[:16]}"


def read_beir(spark: SparkSession, folder: str) -> tuple[DataFrame, DataFrame, dict[str, str]]:
    """The queries (query_id, query) and the corpus (passage_id, passage) of a BEIR folder, and their versions.

    Raises:
        InputError: queries.jsonl or corpus.jsonl is missing, or a row of it is at fault.
    """
    frames, versions = [], {}
    for name, file, columns in (
        (QUERIES, "queries.jsonl", {QUERY_ID: QUERY_ID, QUERY: QUERY}),
        (DOCUMENTS, "corpus.jsonl", {DOC_ID: PASSAGE_ID, TEXT: PASSAGE}),
    ):
        table = Table(spark, f"{folder.rstrip('/')}/{file}")
        rows, versions[name] = read_pinned(spark, table, None, "--beir")
        rows = with_our_names(rows, name)
        require_columns(rows, tuple(columns), table.location)
        frames.append(rows.select(*(F.col(old).alias(new) for old, new in columns.items())))
    return frames[0], frames[1], versions


def write_run(file: Path, run: TrecRun, tag: str) -> None:
    """Write a run, its queries in their order and its documents in trec_eval's.

    Raises:
        InputError: an id has white space, which the format cannot hold; no file is left then.
        ConfigError: the file cannot be written.
    """
    lines = list(run_lines(run, {query: ranking(run[query]) for query in sorted(run)}, tag))
    try:
        file.write_text("".join(lines), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write {file}: {error.strerror}") from error
