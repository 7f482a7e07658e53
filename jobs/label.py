"""Labels pairs with a zoo of teachers: `mkdm label`, which equals `spark-submit jobs/label.py`."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from cluster.session import ClusterConfig, start_session, task_slots
from jobs.engine import (
    COMPLETE,
    REMOVED,
    ROW_CODE,
    ROW_MESSAGE,
    ChunkedRun,
    Identity,
    Ledger,
    Output,
    PinnedPairs,
    Run,
    RunReport,
    RunState,
    Table,
    Warehouse,
    auto_chunks,
    fit_texts,
    known_rate,
    read_pairs,
    refuse_rejects,
    rejected_rows,
    run_job,
    say,
    with_row_code,
)
from mkdm.columns import (
    ERROR_CODE,
    ERROR_MESSAGE,
    LOAD_ID,
    LOGIT,
    PADDED_TOKENS,
    PAIR_KEY,
    SCORE,
    SECONDS,
    SOFT_LABEL,
    TEACHER_ID,
    TEACHER_VERSION,
    TOKENS,
)
from mkdm.config import parse_config
from mkdm.errors import ConfigError
from udfs.labelling import label_udf, outcome_column
from udfs.model import CheckedModel, Teacher, check_model, read_zoo
from udfs.scoring import ScoringSettings

JOB = "label"
TEACHER = "teacher "
"""Prefix of the settings of a run that say which teachers it has, and how each is run."""


@dataclass(frozen=True)
class LabelConfig:
    """Label every pair of a table with all teachers of a zoo, in one pass, from Delta to Delta.

    Raises:
        ConfigError: a number outside its range.
    """

    zoo: str
    """YAML file of the teachers: a list `teachers` of id, model, and perhaps max_tokens and precision."""
    warehouse: str = "warehouse"
    """Where the tables are: a folder or URI, or CATALOG.SCHEMA."""
    teachers: str = "all"
    """Teachers of the zoo to label with: all, or ids joined by commas. What one has labelled is left as it is."""
    pairs: str | None = None
    """Pairs to label, if not <warehouse>/pairs: a Delta table, or a .parquet, .csv or .jsonl file or folder."""
    pairs_version: int | None = None
    """Delta version of the pairs to label; default: the newest when the run starts."""
    soft_labels: str | None = None
    """Table of soft labels, if not <warehouse>/soft_labels."""
    rejected_pairs: str | None = None
    """Table of pairs without a label of a teacher and why, if not <warehouse>/rejected_pairs."""
    runs: str | None = None
    """Table of runs, if not <warehouse>/runs."""
    backend: Literal["auto", "torch", "torch-compile", "openvino"] = "auto"
    """What runs the teachers; auto takes openvino on CPUs where mkdm export-model was run for them, else torch."""
    side_by_side: Literal["auto", "always", "never"] = "auto"
    """Whether an executor keeps all teachers loaded, or a task one at a time; auto: as the free memory allows."""
    token_budget: int | None = None
    """Padded tokens of one batch; default: what suits the device."""
    max_reject_rate: float = 0.05
    """Share of rejected labels, 0 to 1, above which the job fails; what it wrote stays."""
    chunks: Literal["auto"] | int = "auto"
    """Parts by hash of query_id that are committed one by one; auto makes them about five minutes long each."""
    rows_per_task: int = 8192
    """Pairs of one Spark task, which is what is done again when an executor dies."""

    def __post_init__(self) -> None:
        if not 0 <= self.max_reject_rate <= 1:
            raise ConfigError(f"--max-reject-rate is {self.max_reject_rate}; it must lie in [0, 1]")
        for name in ("token_budget", "rows_per_task", "chunks"):
            value = getattr(self, name)
            if value is not None and value != "auto" and value < 1:
                raise ConfigError(f"--{name.replace('_', '-')} is {value}; it must be at least 1")


Versioned = tuple[Teacher, CheckedModel]
"""A teacher, and what every executor must find at its folder."""


def run(spark: SparkSession, config: LabelConfig) -> list[RunReport]:
    """Label the pairs into `soft_labels` and `rejected_pairs`: with each teacher that has not labelled them yet.

    A run that was cut off goes on first; teachers that no run has are then labelled by one more. The same command
    again finds nothing left to do.

    Returns:
        The reports of the runs that were done now; where there was nothing to do, of the last that had a part in it.

    Raises:
        ConfigError: a zoo or a setting that is wrong, or a teacher that the zoo lacks.
        ModelError: a teacher's folder is missing, incomplete or changed.
        InputError: the pairs are missing, empty, or lack a column or its type.
        RejectRateError: more labels were rejected than allowed; all that was labelled is kept.
        RunFailedError: a task failed for good, or rows went missing.
    """
    teachers = _versioned(config)
    warehouse = Warehouse(spark, config.warehouse)
    pairs = read_pairs(spark, warehouse.table("pairs", config.pairs), config.pairs_version)
    ledger = Ledger(warehouse.table("runs", config.runs))
    wanted = {_setting_name(teacher): _setting(teacher, checked) for teacher, checked in teachers}
    complete, cut_off = _earlier(ledger, pairs, config.backend, wanted)
    done = {name for state in complete for name in _teachers_of(state)}
    groups = []
    for state in cut_off:
        if not done & _teachers_of(state).keys():
            groups.append([one for one in teachers if _setting_name(one[0]) in _teachers_of(state)])
            done |= _teachers_of(state).keys()
    groups.append([one for one in teachers if _setting_name(one[0]) not in done])
    outputs = {
        name: warehouse.output(name, getattr(config, name)) for name in ("soft_labels", "rejected_pairs", "runs")
    }
    reports = [_run_group(spark, config, warehouse, ledger, pairs, group, outputs) for group in groups if group]
    if not reports:
        last = complete[-1]
        say(f"all {len(teachers)} teachers have labelled these pairs, in {last.run.run_id} and before: nothing to do")
        reports = [RunReport.of(last.run, last.totals, outputs)]
    for report in reports:
        refuse_rejects(report, config.max_reject_rate)
    return reports


def _versioned(config: LabelConfig) -> list[Versioned]:
    zoo = read_zoo(config.zoo)
    by_id = {teacher.id: teacher for teacher in zoo}
    chosen = list(by_id) if config.teachers == "all" else [name.strip() for name in config.teachers.split(",")]
    missing = [name for name in chosen if name not in by_id]
    if missing:
        raise ConfigError(f"{config.zoo} has no teacher {missing[0]!r}; it has {', '.join(by_id)}")
    teachers = [by_id[name] for name in dict.fromkeys(chosen)]
    return [(one, check_model(one.model, config.backend, one.precision, one.max_tokens)) for one in teachers]


def _setting_name(teacher: Teacher) -> str:
    return TEACHER + teacher.id


def _setting(teacher: Teacher, checked: CheckedModel) -> str:
    more = "".join(f" {name}={value}" for name, value in checked.settings.items())
    return f"{checked.version} max_tokens={teacher.max_tokens} precision={teacher.precision}{more}"


def _teachers_of(state: RunState) -> dict[str, str]:
    return {name: value for name, value in state.run.settings.items() if name.startswith(TEACHER)}


def _earlier(
    ledger: Ledger, pairs: PinnedPairs, backend: str, wanted: dict[str, str]
) -> tuple[list[RunState], list[RunState]]:
    """The complete runs with labels of these teachers for these pairs; and the cut off ones of no other teachers."""
    states = [
        state
        for state in ledger.states(job=JOB)
        if state.run.input_versions == {"pairs": pairs.version} and state.run.settings["backend"] == backend
    ]
    complete = [state for state in states if state.state == COMPLETE and _teachers_of(state).items() & wanted.items()]
    open_ones = [state for state in states if state.state not in (COMPLETE, REMOVED)]
    return complete, [state for state in open_ones if _teachers_of(state).items() <= wanted.items()]


def _run_group(
    spark: SparkSession,
    config: LabelConfig,
    warehouse: Warehouse,
    ledger: Ledger,
    pairs: PinnedPairs,
    teachers: list[Versioned],
    outputs: dict[str, Table],
) -> RunReport:
    versions = " ".join(checked.version for _, checked in teachers)
    identity = Identity(
        JOB,
        {"backend": config.backend, **{_setting_name(one): _setting(one, checked) for one, checked in teachers}},
        {"pairs": pairs.version},
        hashlib.sha256(versions.encode()).hexdigest()[:16],
    )
    say(f"labelling with {', '.join(teacher.id for teacher, _ in teachers)}")
    state = ledger.find(identity, None)
    if state is None:
        count = pairs.count()
        chunks = auto_chunks(count * len(teachers), task_slots(spark), known_rate(ledger, identity))
        chunks = chunks if config.chunks == "auto" else int(config.chunks)
        state = ledger.start(identity, ledger.free_name(identity, None), count, chunks)
    whole = ChunkedRun(
        spark=spark,
        state=state,
        ledger=ledger,
        warehouse=warehouse,
        pairs=pairs.rows,
        transform=lambda part, size: transform(part, config, teachers, math.ceil(size / config.rows_per_task)),
        scores=Output(outputs["soft_labels"], labelled_rows),
        rejects=Output(outputs["rejected_pairs"], rejected_rows),
        require_unchanged=pairs.require_unchanged,
        per_pair=len(teachers),
        doing="labelling",
    )
    return RunReport.of(state.run, whole.complete(), outputs)


def transform(pairs: DataFrame, config: LabelConfig, teachers: list[Versioned], tasks: int | None = None) -> DataFrame:
    """Every pair once per teacher, with its label or with the reason why it has none.

    Args:
        pairs: query_id, passage_id, query, passage (strings, any of them null).
        tasks: how many Spark tasks label them; None leaves it to Spark.

    Returns:
        query_id, passage_id, teacher_id, teacher_version, logit, score, tokens, padded_tokens, error_code,
        error_message, load_id, seconds; logit and score are null exactly where the error_code is not.
    """
    settings = tuple(
        ScoringSettings(
            model=teacher.model,
            model_version=checked.version,
            backend=config.backend,
            precision=teacher.precision,
            max_length=teacher.max_tokens,
            token_budget=config.token_budget,
            export_version=checked.export,
        )
        for teacher, checked in teachers
    )
    labelled = with_row_code(pairs, tasks).withColumn("result", label_udf(settings, config.side_by_side)(*fit_texts()))
    outcomes = [
        F.struct(
            F.lit(teacher.id).alias(TEACHER_ID),
            F.lit(checked.version).alias(TEACHER_VERSION),
            *(
                F.col(f"result.{outcome_column(number, name)}").alias(name)
                for name in (LOGIT, SCORE, TOKENS, PADDED_TOKENS, LOAD_ID, SECONDS, ERROR_CODE, ERROR_MESSAGE)
            ),
        )
        for number, (teacher, checked) in enumerate(teachers)
    ]
    each = labelled.select(*PAIR_KEY, ROW_CODE, ROW_MESSAGE, F.explode(F.array(*outcomes)).alias("outcome"))
    message = F.concat(F.lit("teacher "), F.col(f"outcome.{TEACHER_ID}"), F.lit(": "), f"outcome.{ERROR_MESSAGE}")
    return each.select(
        *PAIR_KEY,
        *(f"outcome.{name}" for name in (TEACHER_ID, TEACHER_VERSION, LOGIT, SCORE)),
        *(f"outcome.{name}" for name in (TOKENS, PADDED_TOKENS, LOAD_ID, SECONDS)),
        F.coalesce(ROW_CODE, f"outcome.{ERROR_CODE}").alias(ERROR_CODE),
        F.coalesce(ROW_MESSAGE, message).alias(ERROR_MESSAGE),
    )


def labelled_rows(staged: DataFrame, run: Run) -> DataFrame:
    """The staged rows with a label, as `soft_labels` has them."""
    return staged.where(F.col(ERROR_CODE).isNull()).select(
        *PAIR_KEY,
        TEACHER_ID,
        TEACHER_VERSION,
        LOGIT,
        F.col(SCORE).alias(SOFT_LABEL),
        F.lit(run.run_id).alias("run_id"),
        F.lit(datetime.now(UTC)).alias("labelled_at"),
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Label from the command line and print what was done."""
    config, cluster = parse_config("mkdm label", argv, LabelConfig, ClusterConfig)
    spark = start_session(cluster, f"mkdm label {config.warehouse}")
    print("\n\n".join(str(report) for report in run(spark, config)))


if __name__ == "__main__":
    run_job(main)
