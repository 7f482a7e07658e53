"""Joins pairs with their labels and writes them, encoded, as Parquet for training: `mkdm export-training-set`."""

import re
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from cluster.session import ClusterConfig, start_session
from jobs.engine import (
    COMPLETE,
    FAILED,
    FOREIGN,
    ROW_CODE,
    ROW_MESSAGE,
    Identity,
    LabelledPairsFlags,
    Ledger,
    Run,
    RunReport,
    Table,
    Warehouse,
    one_line,
    read_pairs,
    refuse_rejects,
    rejected_rows,
    released,
    require_unchanged,
    run_job,
    say,
    stored,
    told,
    with_row_code,
)
from jobs.training_set import (
    LABELLED,
    LEFT_OUT,
    OF_QUERY,
    SPLIT,
    GoldenLabels,
    SoftLabels,
    TrainingFolder,
    TrainingSetReport,
    counts_of,
    read_golden_labels,
    read_soft_labels,
    sources_of,
    split_of,
    totals_of,
    training_rows,
    with_labels,
)
from mkdm import __version__
from mkdm.columns import ERROR_CODE, ERROR_MESSAGE, PAIR_KEY, PASSAGE, QUERY
from mkdm.config import parse_config, require_at_least, require_shares
from mkdm.errors import ConfigError, InputError, MkdmError, RejectRateError, RunFailedError
from udfs.model import check_max_length
from udfs.training_rows import (
    INPUT_IDS,
    LENGTH,
    PAIR_HASH,
    QUERY_LENGTH,
    SOURCE,
    EncodingSettings,
    TrainingSet,
    encode_udf,
    encoding_settings,
)

JOB = "export-training-set"
_SPLIT_NAME = re.compile(r"^[A-Za-z0-9_-]{1,40}$")


@dataclass(frozen=True)
class ExportConfig(LabelledPairsFlags):
    """Write pairs with their golden and soft labels, encoded, as a training set of Parquet files with a manifest.

    Raises:
        ConfigError: a number outside its range, splits that are not shares, or no place for the set.
    """

    tokenizer: str
    """Folder of the encoder or model to be trained, the same on every machine: its tokenizer encodes the pairs."""
    warehouse: str = "warehouse"
    """Where the tables are: a folder or URI, or CATALOG.SCHEMA."""
    output: str | None = None
    """Folder or URI of the set, if not <warehouse>/training_set; needed where the warehouse is CATALOG.SCHEMA."""
    soft_labels: str | None = None
    """Soft labels, if not <warehouse>/soft_labels: as for the others."""
    soft_labels_version: int | None = None
    """Delta version of the soft labels; default: the newest."""
    runs: str | None = None
    """Table of runs, if not <warehouse>/runs."""
    rejected_pairs: str | None = None
    """Table of pairs that cannot be trained on and why, if not <warehouse>/rejected_pairs."""
    teachers: str = "all"
    """Teachers whose soft labels to take: all, none, or ids joined by commas."""
    keep_unlabelled: bool = False
    """Whether pairs without any label are exported too, for `mkdm experiments` to label where there is no Spark."""
    max_length: int = 256
    """Token ids of every row, special tokens and padding included; the passage is cut."""
    splits: str = "train=0.9,valid=0.05,test=0.05"
    """Shares of the queries; a query is in one split with all its pairs, by a stable hash of query_id."""
    row_group_rows: int = 4096
    """Rows of a file about, each of one row group: what a trainer reads, shuffles and deals to its ranks at a time."""
    max_reject_rate: float = 0.05
    """Share of rejected pairs, 0 to 1, above which nothing is exported."""
    overwrite: bool = False
    """Whether to replace another training set that is in the folder."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_shares(self, "max_reject_rate")
        require_at_least(self, 1, "max_length", "row_group_rows")
        self.shares()

    def shares(self) -> dict[str, float]:
        """By split, its share of the queries."""
        try:
            shares = {
                name.strip(): float(share) for name, share in (part.split("=") for part in self.splits.split(","))
            }
        except ValueError:
            shares = {}
        named = len(shares) == len(self.splits.split(",")) and all(map(_SPLIT_NAME.match, shares))
        if not (named and all(0 <= share <= 1 for share in shares.values()) and abs(sum(shares.values()) - 1) < 1e-6):
            raise ConfigError(f"--splits is {self.splits!r}; it takes NAME=SHARE, joined by commas, with sum 1")
        return shares


@one_line
def run(spark: SparkSession, config: ExportConfig) -> TrainingSetReport:
    """Write the training set; the same command again finds it there.

    Raises:
        ConfigError: a setting that the tokenizer's model cannot meet, or no folder for the set.
        ModelError: the tokenizer is missing or cannot be used.
        InputError: an input is missing or lacks a column; a teacher has no soft label; no pair has any label; or the
            folder holds another set.
        RejectRateError: more pairs were rejected than allowed; nothing is exported.
        RunFailedError: a task failed for good, or rows went missing.
    """
    warehouse = Warehouse(spark, config.warehouse)
    folder = _folder(warehouse, config)
    settings, template = encoding_settings(spark, config.tokenizer, config.max_length)
    if (Path(config.tokenizer) / "config.json").exists():
        check_max_length(config.tokenizer, config.max_length)
    table = warehouse.table("pairs", config.pairs)
    options = config.file_options()
    pairs = read_pairs(spark, table, config.pairs_version, (SOURCE,), options)
    ledger = Ledger(warehouse.table("runs", config.runs))
    table = warehouse.table("golden_labels", config.golden_labels)
    golden = read_golden_labels(
        table,
        config.golden_labels_version,
        config.golden_labels is not None,
        config.golden_options(),
    )
    table = warehouse.table("soft_labels", config.soft_labels)
    soft = read_soft_labels(table, config.soft_labels_version, config.soft_labels is not None, ledger, config.teachers)
    identity = _identity(config, settings, pairs.version, golden, soft)
    there = _set_there(folder, config)
    if there is not None and there.fingerprint == identity.fingerprint:
        say(f"this training set is at {folder.location} already, written by {there.run_id}: nothing to do")
        return TrainingSetReport(there)
    if there is not None and not config.overwrite:
        differences = identity.differences(Identity(JOB, there.settings, there.input_versions, there.tokenizer))
        raise InputError(
            f"{folder.location} holds another training set ({differences}): give another --output, or replace it with "
            f"--overwrite true"
        )
    outputs = warehouse.outputs(config, "rejected_pairs", "runs")
    state = ledger.find(identity, None)
    if state is None:
        state = ledger.start(identity, ledger.free_name(identity, None), pairs.count(), 1)
    staged = stored(transform(pairs.rows, config, golden, soft, settings))
    try:
        began = time.monotonic()
        facts = {
            "teacher_ids": list(soft.teachers),
            "teacher_versions": list(soft.teachers.values()),
            "template": template,
        }
        places = {name: warehouse.table(name, getattr(config, name)).location for name in identity.input_versions}
        training_set = _write(staged, config, state.run, folder, outputs["rejected_pairs"], facts, places)
        totals = totals_of(training_set.counts)
        ledger.record(state.run, COMPLETE, replace(totals, seconds=time.monotonic() - began))
    except (*FOREIGN, MkdmError) as error:
        if state.state != COMPLETE:
            with suppress(*FOREIGN):
                ledger.record(state.run, FAILED)
        if isinstance(error, (InputError, RejectRateError)):
            raise
        raise RunFailedError(f"run {state.run.run_id} failed: {told(error)}") from error
    finally:
        released(staged)
    return TrainingSetReport(training_set)


def transform(
    pairs: DataFrame, config: ExportConfig, golden: GoldenLabels, soft: SoftLabels, settings: EncodingSettings
) -> DataFrame:
    """Every pair encoded, with its labels; or with the reason why not.

    Args:
        pairs: query_id, passage_id, query, passage, and perhaps source (strings, any of them null).

    Returns:
        query_id, passage_id, pair (xxhash64 of the two), split, source, golden_label (-1 for none), a soft label per
        teacher (NaN for none), input_ids, length, query_length, left_out (no label at all), error_code, error_message.
        Rows that are left out or have an error are not encoded.
    """
    coded, labels = with_labels(with_row_code(pairs), golden, soft)
    wanted = F.lit(config.keep_unlabelled) | F.col(LABELLED)
    fit = F.col(ROW_CODE).isNull() & wanted
    result = encode_udf(settings)(F.when(fit, F.col(QUERY)), F.when(fit, F.col(PASSAGE)))
    return coded.withColumn("result", result).select(
        *PAIR_KEY,
        F.xxhash64(*PAIR_KEY).alias(PAIR_HASH),
        split_of(config.shares()).alias(SPLIT),
        *labels,
        *(F.col(f"result.{name}") for name in (INPUT_IDS, LENGTH, QUERY_LENGTH)),
        (F.col(ROW_CODE).isNull() & ~wanted).alias(LEFT_OUT),
        F.coalesce(ROW_CODE, F.when(fit, F.col(f"result.{ERROR_CODE}"))).alias(ERROR_CODE),
        F.coalesce(ROW_MESSAGE, F.when(fit, F.col(f"result.{ERROR_MESSAGE}"))).alias(ERROR_MESSAGE),
    )


def _folder(warehouse: Warehouse, config: ExportConfig) -> TrainingFolder:
    place = warehouse.table("training_set")
    if config.output is None and place.in_catalog:
        raise ConfigError(f"--warehouse {config.warehouse} is a catalog: give the training set a folder with --output")
    return TrainingFolder(warehouse.spark, (config.output or place.location).rstrip("/"))


def _set_there(folder: TrainingFolder, config: ExportConfig) -> TrainingSet | None:
    try:
        return folder.read()
    except InputError:
        if config.overwrite:
            return None
        raise


def _identity(
    config: ExportConfig, settings: EncodingSettings, pairs: str, golden: GoldenLabels, soft: SoftLabels
) -> Identity:
    shares = ",".join(f"{name}={share:g}" for name, share in config.shares().items())
    chosen = {
        "teachers": ",".join(f"{teacher}@{version}" for teacher, version in soft.teachers.items()),
        "label_runs": soft.runs,
        "splits": shares,
        "max_length": str(config.max_length),
        "row_group_rows": str(config.row_group_rows),
        "files": "by query",
    }
    if config.keep_unlabelled:
        chosen["keep_unlabelled"] = "True"
    versions = {"pairs": pairs, "golden_labels": golden.version, "soft_labels": soft.version}
    return Identity(JOB, chosen, versions, settings.version)


def _write(
    staged: DataFrame,
    config: ExportConfig,
    run: Run,
    folder: TrainingFolder,
    rejects: Table,
    facts: dict[str, Any],
    places: dict[str, str],
) -> TrainingSet:
    """Count, write the rejects, then the files, then the manifest.

    Args:
        facts: what the manifest says of the teachers and of the encoding.
        places: where each input is.
    """
    exported = staged.where(F.col(ERROR_CODE).isNull() & ~F.col(LEFT_OUT))
    sources = sources_of(exported)
    counts = counts_of(staged, exported, list(config.shares()), sources, facts["teacher_ids"])
    for name, version in run.input_versions.items():
        require_unchanged(staged.sparkSession, places[name], version)
    if counts["exported"] + counts["left_out"] + counts["rejected"] != run.rows:
        raise RunFailedError(f"{run.rows:,} pairs went in, and came out as {counts}")
    if counts["rejected"]:
        transaction = run.transaction("rejects")
        rejects.append(rejected_rows(staged, run).coalesce(1), transaction)
        rejects.verify(transaction, counts["rejected"])
    outcome = RunReport(run, totals_of(counts), counts["rejects"], {"rejected_pairs": rejects.location})
    refuse_rejects(outcome, config.max_reject_rate)
    if not counts["exported"]:
        raise InputError(f"none of the {run.rows:,} pairs has a golden label or a label of a chosen teacher")
    part = run.fingerprint[:16]
    rows = training_rows(exported, sources, len(facts["teacher_ids"]))
    sizes = {split: of_split["rows"] for split, of_split in counts["splits"].items()}
    files = folder.write(rows, part, sizes, config.row_group_rows, config.max_length)
    training_set = TrainingSet(
        folder=folder.location,
        fingerprint=run.fingerprint,
        run_id=run.run_id,
        max_length=config.max_length,
        sources=sources,
        splits=config.shares(),
        counts=counts,
        settings=run.settings,
        input_versions=run.input_versions,
        columns={field.name: field.dataType.simpleString() for field in rows.drop(SPLIT, OF_QUERY).schema},
        engine_version=__version__,
        files=files,
        tokenizer=run.model_version,
        **facts,
    )
    folder.publish(training_set)
    return training_set


def main(argv: Sequence[str] | None = None) -> None:
    """Export from the command line and print what was done."""
    config, cluster = parse_config("mkdm export-training-set", argv, ExportConfig, ClusterConfig)
    print(run(start_session(cluster, f"mkdm export-training-set {config.warehouse}"), config))


if __name__ == "__main__":
    run_job(main)
