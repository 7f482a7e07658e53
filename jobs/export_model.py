"""Exports a model for fast CPUs, through its quality gate: `mkdm export-model`."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from cluster.session import ClusterConfig, start_session
from jobs.engine import (
    COMPLETE,
    FAILED,
    Identity,
    LabelledPairsFlags,
    Ledger,
    Totals,
    Warehouse,
    one_line,
    read_pairs,
    read_pinned,
    read_pinned_pairs,
    run_job,
    say,
    settings_of,
)
from jobs.evaluate import transform as labelled_pairs
from jobs.reports import read_grouped
from mkdm.columns import GOLDEN_LABEL, PAIR, PASSAGE, PASSAGE_ID, QUERY, QUERY_ID
from mkdm.config import parse_config, require_at_least
from mkdm.errors import ConfigError, InputError, QualityGateError
from udfs.export import PRECISIONS, Registration, check_installed, export, register
from udfs.model import Export, is_uri
from udfs.scoring import check_model

JOB = "export-model"
SETTINGS = ("format", "seed", "calibration_rows", "validation_rows", "max_auc_loss", "force")
"""The flags that decide what comes of an export."""
GATE_FIGURES = ("auc", "auc_change", "accuracy_change", "rank_correlation", "mean_score_drift", "max_score_drift")


@dataclass(frozen=True)
class ExportModelConfig(LabelledPairsFlags):
    """Turn a model into OpenVINO or ONNX files beside its weights: fp32, bf16, int8, each through a quality gate.

    Raises:
        ConfigError: a number outside its range, a precision that the format lacks, or no single local folder.
    """

    model: str
    """Folder of the model; the files are written into its folder openvino or onnx."""
    warehouse: str = "warehouse"
    """Where the tables are: a folder or URI, or CATALOG.SCHEMA."""
    calibration: str | None = None
    """Pairs to calibrate int8 on, if not <warehouse>/pairs: a Delta table, or a .parquet, .csv or .jsonl file or
    folder. They need no golden label, and should be of the kind that will be scored."""
    calibration_rows: int = 300
    """How many of them, drawn by --seed."""
    validation_rows: int = 4000
    """How many pairs with a golden label to validate on, drawn by --seed, query by query."""
    precisions: str | None = None
    """Which files to make, joined by commas: of fp32, bf16, int8 for openvino, of fp32, int8 for onnx; default: all.
    Those of other precisions that are there stay."""
    seed: int = 0
    """Of both draws and of the quantisation."""
    max_auc_loss: float = 0.002
    """What AUC may fall by before a precision is refused; 0.002 is 0.2 points."""
    force: bool = False
    """Keep a precision that fails the gate: a run that names it takes it, --precision auto does not."""
    runs: str | None = None
    """Table of runs, if not <warehouse>/runs."""
    format: Literal["openvino", "onnx"] = "openvino"
    """openvino: IR files, which mkdm score takes on CPUs. onnx: a file with the score as its output and a
    tokenizer.json beside it, for other servers; separate layers and templates are refused."""
    register: str | None = None
    """Registered model of MLflow, in Unity Catalog CATALOG.SCHEMA.NAME, that gets the folder as a new version."""
    register_alias: str | None = None
    """Alias of that version, such as champion, by which mkdm score --model models:/NAME@ALIAS finds it."""
    mlflow: str | None = None
    """MLflow tracking URI of --register; default: $MLFLOW_TRACKING_URI."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(self, 1, "calibration_rows")
        require_at_least(self, 2, "validation_rows")
        require_at_least(self, 0, "seed", "max_auc_loss")
        if "," in self.model or is_uri(self.model):
            raise ConfigError(f"--model is {self.model}; give one local folder, to write the files into")
        if not set(self.chosen) <= set(PRECISIONS[self.format]):
            raise ConfigError(f"--precisions is {self.precisions!r}: choose from {', '.join(PRECISIONS[self.format])}")

    @property
    def chosen(self) -> tuple[str, ...]:
        """The precisions to make."""
        if self.precisions is None:
            return PRECISIONS[self.format]
        return tuple(name.strip() for name in self.precisions.split(","))


@dataclass(frozen=True)
class ExportModelReport:
    """What came of an export.

    Attributes:
        run_id: its row in `runs`.
    """

    run_id: str
    export: Export

    def __str__(self) -> str:
        export = self.export
        head = "".join(f"{name.replace('_', ' '):>18}" for name in GATE_FIGURES)
        lines = [f"{'':<16}{head}{'pairs/s':>9}{'MB':>6}"]
        torch = {"auc": export.reference["auc"]}
        lines.append(_line("torch fp32", torch, export.reference["pairs_per_s"], None))
        for name, one in export.exported.items():
            label = name if one.passed else f"{name} (forced)"
            lines.append(_line(label, one.figures, one.figures["pairs_per_s"], one.figures["megabytes"]))
        lines += [
            _line(f"{name} (refused)", figures, figures["pairs_per_s"], figures["megabytes"])
            for name, figures in export.refused.items()
        ]
        return "\n".join([*lines, f"run {self.run_id}, model {export.model_version}, export {export.version()}"])


def _line(name: str, figures: dict[str, float], rate: float, megabytes: float | None) -> str:
    cells = "".join(f"{figures[column]:>18.5f}" if column in figures else f"{'':>18}" for column in GATE_FIGURES)
    return f"{name:<16}{cells}{rate:>9.1f}{'' if megabytes is None else f'{megabytes:,.0f}':>6}"


@one_line
def run(spark: SparkSession, config: ExportModelConfig) -> ExportModelReport:
    """Export; what passed the gate is kept, and the figures are added to `runs`.

    Raises:
        ConfigError: what the format needs is not installed.
        ModelError: the model folder is missing, incomplete or changed, or the format cannot hold it.
        InputError: pairs or golden labels are missing or at fault.
        QualityGateError: a precision was refused; the others are kept.
    """
    check_installed(config.format)
    registration = Registration.wanted(config.register, config.register_alias, config.mlflow)
    model = check_model(config.model, "torch", "fp32")
    warehouse = Warehouse(spark, config.warehouse)
    options = config.file_options()
    golden_options = config.golden_options()
    calibration_table = warehouse.table("pairs", config.calibration)
    calibration = read_pairs(spark, calibration_table, None, options=options, faults="leave out")
    golden = warehouse.table("golden_labels", config.golden_labels)
    pairs, golden_labels, _ = read_grouped(
        (
            table := warehouse.table("pairs", config.pairs),
            *read_pinned_pairs(spark, table, config.pairs_version, options),
        ),
        (golden, *read_pinned(spark, golden, config.golden_labels_version, "--golden-labels-version", golden_options)),
        None,
    )
    versions = {
        "calibration": calibration.version,
        "pairs": pairs.version,
        "golden_labels": golden_labels.version,
    }
    drawn = draw(calibration.rows, config.calibration_rows, config.seed, (QUERY_ID, PASSAGE_ID)).toPandas()
    labelled = draw(
        labelled_pairs(pairs.rows, golden_labels.rows), config.validation_rows, config.seed, (QUERY_ID,)
    ).toPandas()
    for one in (calibration, pairs, golden_labels):
        one.require_unchanged()
    for frame, where in ((drawn, calibration.table.location), (labelled, table.location)):
        if frame.empty:
            wanted = "pair" if frame is drawn else f"pair with a golden label in {golden.location}"
            raise InputError(f"{where} has no {wanted}: there is nothing to export with")
    ledger = Ledger(warehouse.output("runs", config.runs))
    settings = settings_of(config, SETTINGS) | {"precisions": ",".join(config.chosen)}
    identity = Identity(JOB, settings, versions, model.model_version)
    state = ledger.start(identity, ledger.free_name(identity, None), len(labelled), 0)
    started = time.monotonic()
    about = {"run_id": state.run.run_id, **identity.settings, **{f"version of {k}": v for k, v in versions.items()}}
    try:
        done = export(
            config.format,
            config.model,
            drawn,
            labelled,
            config.chosen,
            config.seed,
            config.max_auc_loss,
            config.force,
            about,
            say,
        )
    except Exception:
        ledger.record(state.run, FAILED)
        raise
    figures = {name: one.figures for name, one in done.exported.items()} | done.refused
    gate = {f"{name} {key}": value for name, some in figures.items() for key, value in some.items()}
    noted = {name: f"{value:.6g}" for name, value in gate.items()}
    totals = Totals(len(labelled), len(labelled), model_loads=1 + len(figures), seconds=time.monotonic() - started)
    ledger.record(replace(state.run, settings=state.run.settings | noted), COMPLETE, totals)
    report = ExportModelReport(state.run.run_id, done)
    if done.refused:
        say(str(report))
        name, bad = next(iter(done.refused.items()))
        kept = ", ".join(done.exported) or "none"
        raise QualityGateError(
            f"{', '.join(done.refused)} refused by the quality gate, kept: {kept}; {name} "
            f"changes AUC by {100 * bad['auc_change']:+.2f} points and scores by up to {bad['max_score_drift']:.2g}: "
            f"give other or more calibration pairs, or --force true"
        )
    if registration is not None:
        say(f"registered as {register(config.model, registration, gate, about)}")
    return report


def draw(rows: DataFrame, count: int, seed: int, by: tuple[str, ...]) -> DataFrame:
    """Rows with text, in an order that the seed shuffles and that is the same each time; at most `count`.

    Args:
        by: columns whose equal values stay together.
    """
    has_text = [F.length(F.trim(F.coalesce(name, F.lit("")))) > 0 for name in (QUERY, PASSAGE)]
    keyed = F.col(QUERY_ID).isNotNull() & F.col(PASSAGE_ID).isNotNull()
    order = (F.xxhash64(F.lit(seed), *by), QUERY_ID, PASSAGE_ID, QUERY, PASSAGE)
    wanted = [name for name in (*PAIR, GOLDEN_LABEL) if name in rows.columns]
    return rows.where(has_text[0] & has_text[1] & keyed).orderBy(*order).limit(count).select(*wanted)


def main(argv: Sequence[str] | None = None) -> None:
    """Export from the command line and print the figures."""
    config, cluster = parse_config("mkdm export-model", argv, ExportModelConfig, ClusterConfig)
    print(run(start_session(cluster, f"mkdm export-model {config.model}"), config))


if __name__ == "__main__":
    run_job(main)
