"""Labels pairs with a zoo of teachers: `mkdm label`, which equals `spark-submit jobs/label.py`."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from cluster.session import ClusterConfig, start_session
from jobs.engine import (
    COMPLETE,
    REMOVED,
    ROW_CODE,
    ROW_MESSAGE,
    Identity,
    Output,
    PairsJob,
    PairsJobConfig,
    Run,
    RunReport,
    RunState,
    Table,
    fit_texts,
    one_line,
    refuse_rejects,
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
from udfs.model import Teacher, read_zoo
from udfs.scoring import ScoringSettings, check_model

JOB = "label"
TEACHER = "teacher "
"""Prefix of the settings of a run that say which teachers it has, and how each is run."""


@dataclass(frozen=True)
class LabelConfig(PairsJobConfig):
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
    soft_labels: str | None = None
    """Table of soft labels, if not <warehouse>/soft_labels."""
    side_by_side: Literal["auto", "always", "never"] = "auto"
    """Whether an executor keeps all teachers loaded, or a task one at a time; auto: as the free memory allows."""


Versioned = tuple[Teacher, ScoringSettings]
"""A teacher, and what every executor must find at its folder."""


@one_line
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
    job = PairsJob.read(spark, config, config.warehouse)
    wanted = {_setting_name(teacher): _setting(teacher, checked) for teacher, checked in teachers}
    complete, cut_off = _earlier(job, config.backend, wanted)
    done = {name for state in complete for name in _teachers_of(state)}
    groups = []
    for state in cut_off:
        if not done & _teachers_of(state).keys():
            groups.append([one for one in teachers if _setting_name(one[0]) in _teachers_of(state)])
            done |= _teachers_of(state).keys()
    groups.append([one for one in teachers if _setting_name(one[0]) not in done])
    outputs = job.warehouse.outputs(config, "soft_labels", "rejected_pairs", "runs")
    reports = [_run_group(job, config, group, outputs) for group in groups if group]
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
    return [(one, _checked(one, config)) for one in teachers]


def _checked(teacher: Teacher, config: LabelConfig) -> ScoringSettings:
    return check_model(teacher.model, config.backend, teacher.precision, teacher.max_tokens, config.token_budget)


def _setting_name(teacher: Teacher) -> str:
    return TEACHER + teacher.id


def _setting(teacher: Teacher, checked: ScoringSettings) -> str:
    more = "".join(f" {name}={value}" for name, value in checked.export_setting.items())
    return f"{checked.model_version} max_tokens={teacher.max_tokens} precision={teacher.precision}{more}"


def _teachers_of(state: RunState) -> dict[str, str]:
    return {name: value for name, value in state.run.settings.items() if name.startswith(TEACHER)}


def _earlier(job: PairsJob, backend: str, wanted: dict[str, str]) -> tuple[list[RunState], list[RunState]]:
    """The complete runs with labels of these teachers for these pairs; and the cut off ones of no other teachers."""
    states = [
        state
        for state in job.ledger.states(job=JOB)
        if state.run.input_versions == {"pairs": job.pairs.version} and state.run.settings["backend"] == backend
    ]
    complete = [state for state in states if state.state == COMPLETE and _teachers_of(state).items() & wanted.items()]
    open_ones = [state for state in states if state.state not in (COMPLETE, REMOVED)]
    return complete, [state for state in open_ones if _teachers_of(state).items() <= wanted.items()]


def _run_group(job: PairsJob, config: LabelConfig, teachers: list[Versioned], outputs: dict[str, Table]) -> RunReport:
    versions = " ".join(checked.model_version for _, checked in teachers)
    identity = Identity(
        JOB,
        {"backend": config.backend, **{_setting_name(one): _setting(one, checked) for one, checked in teachers}},
        {"pairs": job.pairs.version},
        hashlib.sha256(versions.encode()).hexdigest()[:16],
    )
    say(f"labelling with {', '.join(teacher.id for teacher, _ in teachers)}")
    state = job.ledger.find(identity, None)
    if state is None:
        state = job.start(identity, job.pairs.count(), per_pair=len(teachers))
    return job.complete(
        state,
        outputs,
        Output(outputs["soft_labels"], labelled_rows),
        lambda part, tasks: transform(part, config, teachers, tasks),
        per_pair=len(teachers),
        doing="labelling",
    )


def transform(pairs: DataFrame, config: LabelConfig, teachers: list[Versioned], tasks: int | None = None) -> DataFrame:
    """Every pair once per teacher, with its label or with the reason why it has none.

    Args:
        pairs: query_id, passage_id, query, passage (strings, any of them null).
        tasks: how many Spark tasks label them; None leaves it to Spark.

    Returns:
        query_id, passage_id, teacher_id, teacher_version, logit, score, tokens, padded_tokens, error_code,
        error_message, load_id, seconds; logit and score are null exactly where the error_code is not.
    """
    settings = tuple(checked for _, checked in teachers)
    labelled = with_row_code(pairs, tasks).withColumn("result", label_udf(settings, config.side_by_side)(*fit_texts()))
    outcomes = [
        F.struct(
            F.lit(teacher.id).alias(TEACHER_ID),
            F.lit(checked.model_version).alias(TEACHER_VERSION),
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
