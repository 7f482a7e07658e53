"""Evaluates one model or two against golden labels: `mkdm evaluate`."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.storagelevel import StorageLevel

from cluster.session import ClusterConfig, start_session
from jobs.engine import (
    Identity,
    LabelledPairsFlags,
    Ledger,
    Table,
    Warehouse,
    one_line,
    read_pinned,
    read_pinned_pairs,
    released,
    run_job,
    say,
    settings_of,
    stored,
)
from jobs.reports import (
    GROUP,
    EvaluationReport,
    Model,
    RankedDocuments,
    RankedDocumentsFlags,
    Source,
    StoredRun,
    collect,
    join_scores,
    measure_documents,
    read_grouped,
    require_ranking,
    scoring_model,
    stored_source,
    table_rows,
    write_files,
)
from mkdm import __version__
from mkdm.columns import CONTENT_HASH, GOLDEN_LABEL, PAIR_KEY, PASSAGE, PASSAGE_ID, QUERY, QUERY_ID
from mkdm.config import parse_config, require_at_least
from mkdm.errors import ConfigError, InputError
from udfs.quality import AGAINST, ALL, MODEL, LabelledPairs, evaluate
from udfs.scoring import check_model

JOB = "evaluate"
SETTINGS = ("backend", "precision", "max_length", "resamples", "seed")
"""The flags that change a figure, besides models and inputs."""
MOST_GROUPS = 50
"""Groups that a page can show."""


@dataclass(frozen=True)
class EvaluateConfig(LabelledPairsFlags, RankedDocumentsFlags):
    """Measure a model, or the scores of a run, against golden labels, by source; or two of them with a paired test.

    With --qrels or --beir, measure rankings of documents against graded judgments, as trec_eval does.

    Raises:
        ConfigError: a number outside its range, or flags that exclude each other.
    """

    model: str | None = None
    """Folder of the model; several folders joined by commas are an ensemble, whose scores are averaged."""
    against: str | None = None
    """Second model or ensemble, for a paired test on the same pairs."""
    run_id: str | None = None
    """Complete scoring run whose stored scores are evaluated, instead of a model that scores now."""
    against_run_id: str | None = None
    """Second scoring run, for a paired test."""
    warehouse: str = "warehouse"
    """Where the tables are: a folder or URI, or CATALOG.SCHEMA."""
    pairs_version: int | None = None
    """Delta version of the pairs; default: the one that --run-id has scored, or else the newest."""
    scores: str | None = None
    """Table of scores, if not <warehouse>/scores."""
    runs: str | None = None
    """Table of runs, if not <warehouse>/runs."""
    evaluations: str | None = None
    """Table to add the figures to, if not <warehouse>/evaluations."""
    output: str = "evaluation"
    """Local folder for evaluation.json and evaluation.html."""
    by: str | None = None
    """Column of the golden labels or the pairs to group by; default: source, or else what stands before the first colon
    of every query_id."""
    backend: Literal["auto", "torch", "torch-compile", "openvino"] = "auto"
    """What runs the model; auto takes openvino on CPUs where mkdm export-model was run, else torch."""
    precision: Literal["auto", "fp32", "bf16", "fp16", "int8"] = "auto"
    """Number format of the model; auto takes the fastest that each executor has, of exports the fastest that passed."""
    max_length: int | None = None
    """Tokens of a pair at most, special tokens included; the passage is cut. Default: as the model was trained."""
    token_budget: int | None = None
    """Padded tokens of one batch; default: what suits the device."""
    resamples: int = 1000
    """How many times the queries are drawn for the intervals and the test."""
    seed: int = 0
    """Of those draws."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_ranking(self)
        if not self.judged() and (self.model is None) == (self.run_id is None):
            raise ConfigError("give --model to score now, or --run-id for stored scores: one of the two")
        if self.against is not None and self.against_run_id is not None:
            raise ConfigError("--against and --against-run-id exclude each other")
        require_at_least(self, 2, "resamples")
        require_at_least(self, 0, "seed")
        require_at_least(self, 1, "max_length", "token_budget")


@one_line
def run(spark: SparkSession, config: EvaluateConfig) -> EvaluationReport | RankedDocuments:
    """Evaluate; write the page and the JSON, and add the figures to `evaluations` unless they are there.

    Raises:
        ConfigError: a setting that a model cannot meet, or an output folder that cannot be made.
        ModelError: a model folder is missing, incomplete or changed.
        InputError: pairs or golden labels are missing or at fault, no pair has a golden label, or none of those a
            score; or a run is not complete.
    """
    warehouse = Warehouse(spark, config.warehouse)
    sources = _sources(warehouse, config)
    folder, evaluations = _folder(config.output), warehouse.output("evaluations", config.evaluations)
    if config.judged():
        return _ranked_documents(warehouse, config, sources, folder, evaluations)
    table = warehouse.table("pairs", config.pairs)
    version = _pairs_version(config, table, sources[MODEL])
    golden_table = warehouse.table("golden_labels", config.golden_labels)
    pairs, golden_labels, by = read_grouped(
        (table, *read_pinned_pairs(spark, table, version, config.file_options())),
        (golden_table, *_golden_labels(golden_table, config)),
        config.by,
    )
    labelled = stored(transform(pairs.rows, golden_labels.rows), StorageLevel.MEMORY_AND_DISK)
    try:
        count = labelled.count()
        if not count:
            raise InputError(
                f"no pair of {table.location} has a golden label in {golden_table.location}: none of the "
                f"{golden_labels.count:,} keys (query_id, passage_id) there is a pair's"
            )
        group = [GROUP] if GROUP in labelled.columns else []
        known = collect(labelled, QUERY, PASSAGE, GOLDEN_LABEL, *group)
        scores = {side: source.scores(labelled, count) for side, source in sources.items()}
        pairs.require_unchanged()
        golden_labels.require_unchanged()
    finally:
        released(labelled)
    found, missing = join_scores(known, scores)
    if found.empty:
        raise InputError(f"none of the {count:,} pairs with a golden label has a score ({'; '.join(missing.values())})")
    found, by = _grouped(found, by)
    say(f"measuring {len(found):,} pairs, {config.resamples:,} resamples")
    names = (QUERY_ID, PASSAGE_ID, QUERY, PASSAGE, GOLDEN_LABEL, GROUP)
    columns = [found[name].to_numpy(np.int64 if name == GOLDEN_LABEL else object) for name in names]
    sides = {side: found[side].to_numpy(np.float64) for side in sources}
    evaluation = evaluate(LabelledPairs(*columns), sides, config.resamples, config.seed)

    now = datetime.now(UTC)
    identity = _identity(config, sources, {"pairs": pairs.version, "golden_labels": golden_labels.version}, by)
    about = {
        **{side: source.name for side, source in sources.items()},
        **{f"version of {side}": source.version for side, source in sources.items()},
        "pairs": f"{table.location}, version {pairs.version}",
        "golden labels": f"{golden_table.location}, version {golden_labels.version}",
        "evaluated": f"{len(found):,} pairs of {evaluation.groups[0].queries:,} queries",
        "pairs without a golden label": f"{pairs.count() - count:,}",
        "golden labels without a pair": f"{golden_labels.count - len(known.drop_duplicates(list(PAIR_KEY))):,}",
        **{f"no score from {side}": text for side, text in missing.items()},
        "grouped by": by or "–",
        "settings": ", ".join(f"{name} {value}" for name, value in settings_of(config, SETTINGS).items()),
        "evaluated at": f"{now:%Y-%m-%d %H:%M} UTC, mkdm {__version__}",
        "evaluation": identity.fingerprint,
    }
    page = str(folder / "evaluation.html")
    report = EvaluationReport(identity.fingerprint, evaluation, about, page, evaluations.location)
    write_files(folder, report, "Evaluation of " + " against ".join(source.name for source in sources.values()))
    evaluations.append(table_rows(spark, evaluation, identity, sources, now), f"{JOB}/{identity.fingerprint}")
    return report


def _ranked_documents(
    warehouse: Warehouse, config: EvaluateConfig, sources: dict[str, Source], folder: Path, evaluations: Table
) -> RankedDocuments:
    found = measure_documents(warehouse, config, sources, config.resamples, config.seed)
    now, identity = datetime.now(UTC), _identity(config, found.sources, found.versions, None)
    about = found.about | {
        "settings": ", ".join(f"{name} {value}" for name, value in settings_of(config, SETTINGS).items()),
        "evaluated at": f"{now:%Y-%m-%d %H:%M} UTC, mkdm {__version__}",
        "evaluation": identity.fingerprint,
    }
    named = replace(found, about=about, evaluation_id=identity.fingerprint, table=evaluations.location)
    report = named.write(folder)
    rows = table_rows(warehouse.spark, report.evaluation, identity, found.sources, now)
    evaluations.append(rows, f"{JOB}/{identity.fingerprint}")
    return report


def transform(pairs: DataFrame, golden_labels: DataFrame) -> DataFrame:
    """The pairs that have a golden label, which are those to be scored.

    Args:
        pairs: query_id, passage_id, query, passage.
        golden_labels: query_id, passage_id, golden_label; each key once. GROUP may be on either side.

    Returns:
        All columns of both, and content_hash.
    """
    return pairs.join(golden_labels, list(PAIR_KEY)).withColumn(CONTENT_HASH, F.xxhash64(QUERY, PASSAGE))


def _sources(warehouse: Warehouse, config: EvaluateConfig) -> dict[str, Source]:
    ledger, table = Ledger(warehouse.table("runs", config.runs)), warehouse.table("scores", config.scores)
    found: dict[str, Source] = {}
    for side, model, run_id in (
        (MODEL, config.model, config.run_id),
        (AGAINST, config.against, config.against_run_id),
    ):
        if model is not None:
            settings = check_model(model, config.backend, config.precision, config.max_length, config.token_budget)
            found[side] = scoring_model(ledger, model, settings)
        elif run_id is not None:
            found[side] = stored_source(ledger, table, run_id)
    return found


def _golden_labels(table: Table, config: EvaluateConfig) -> tuple[DataFrame, str]:
    options = config.golden_options()
    return read_pinned(table.spark, table, config.golden_labels_version, "--golden-labels-version", options)


def _folder(output: str) -> Path:
    folder = Path(output)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--output {output} cannot be made: {error.strerror}; give a local folder") from error
    return folder


def _pairs_version(config: EvaluateConfig, table: Table, source: Source) -> int | None:
    """The version to read: of a stored run the one that it has scored, if the pairs are still that table."""
    if config.pairs_version is None and isinstance(source, StoredRun):
        table_id, _, version = source.run.run.input_versions["pairs"].partition("@")
        if version and table.exists() and table.table_id() == table_id:
            return int(version)
    return config.pairs_version


def _identity(config: EvaluateConfig, sources: dict[str, Source], versions: dict[str, str], by: str | None) -> Identity:
    versions |= {f"{side}_run": source.name for side, source in sources.items() if isinstance(source, StoredRun)}
    settings = settings_of(config, SETTINGS) | {"by": str(by)}
    for side, source in sources.items():
        if isinstance(source, Model):
            more = source.settings.export_setting | source.settings.settled_setting
            settings |= {f"{side}_{name}": value for name, value in more.items()}
    if AGAINST in sources:
        settings["against_version"] = sources[AGAINST].version
    if config.judged():
        settings["metrics"] = config.metrics
    return Identity(JOB, settings, versions, next(iter(sources.values())).version)


def _grouped(found: pd.DataFrame, by: str | None) -> tuple[pd.DataFrame, str | None]:
    """With a column GROUP: as it came, or the part of query_id before the first colon, or empty; and its name."""
    if by is None:
        prefix = found[QUERY_ID].str.partition(":")
        if (prefix[1] == ":").all():
            found, by = found.assign(**{GROUP: prefix[0]}), "query_id, up to its first colon"
        else:
            return found.assign(**{GROUP: ""}), None
    names = set(found[GROUP])
    if len(names) > MOST_GROUPS:
        raise InputError(f"there are {len(names):,} groups by {by}, at most {MOST_GROUPS} can be shown: choose --by")
    if ALL in names:
        raise InputError(f"a group by {by} is called {ALL!r}, as all pairs together are: rename it or choose --by")
    return found, by


def main(argv: Sequence[str] | None = None) -> None:
    """Evaluate from the command line and print the figures and where the page is."""
    config, cluster = parse_config("mkdm evaluate", argv, EvaluateConfig, ClusterConfig)
    print(run(start_session(cluster, f"mkdm evaluate {config.warehouse}"), config))


if __name__ == "__main__":
    run_job(main)
