"""Labels pairs with a zoo of teachers: `mkdm label`, which equals `spark-submit jobs/label.py`."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from cluster.session import ClusterConfig, start_session
from jobs.engine import (
    COMPLETE,
    REMOVED,
    Identity,
    Outcome,
    Output,
    PairsJob,
    PairsJobConfig,
    Run,
    RunReport,
    RunState,
    Table,
    block_texts,
    blocks_of,
    dealt,
    groups_for,
    interpreted,
    one_line,
    outcome_of,
    refuse_rejects,
    rows_of,
    run_job,
    say,
)
from mkdm.columns import (
    ERROR_CODE,
    ERROR_MESSAGE,
    LOGIT,
    PAIR_KEY,
    PASSAGE,
    QUERY,
    SCORE,
    SOFT_LABEL,
    TEACHER_ID,
    TEACHER_VERSION,
)
from mkdm.config import parse_config
from mkdm.errors import ConfigError, InputError
from udfs.labelling import label_udf, outcome_column, score_here
from udfs.model import Teacher, read_zoo
from udfs.precision import settle_in_a_task
from udfs.scoring import RUNS_AS, ScoringSettings, check_model
from udfs.shipping import ship

JOB = "label"
TEACHER = "teacher "
"""Prefix of the settings of a run that say which teachers it has, and how each is run."""
_RUNS_AS = f" {RUNS_AS}="
CHECKED_PAIRS = 20
"""Pairs that `--check` scores."""
SHOWN = 48
"""Characters of a text that `--check` prints."""


@dataclass(frozen=True)
class LabelConfig(PairsJobConfig):
    """Label every pair of a table with all teachers of a zoo, in one pass, from Delta to Delta.

    Raises:
        ConfigError: a number outside its range.
    """

    zoo: str
    """YAML file of the teachers: a list `teachers` of id, model, and perhaps max_tokens, precision, backend, prompt,
    template and label."""
    warehouse: str = "warehouse"
    """Where the tables are: a folder or URI, or CATALOG.SCHEMA."""
    teachers: str = "all"
    """Teachers of the zoo to label with: all, or ids joined by commas. What one has labelled is left as it is."""
    soft_labels: str | None = None
    """Table of soft labels, if not <warehouse>/soft_labels."""
    side_by_side: Literal["auto", "always", "never"] = "auto"
    """Whether an executor keeps all teachers loaded, or a task one at a time; auto: as the free memory allows."""
    check: bool = False
    """Label nothing: score twenty pairs with each teacher on this machine, whatever --master is, and print them."""


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
    with interpreted(spark) as compile_queries:
        job = PairsJob.read(spark, config, config.warehouse, compile_queries)
        wanted = {_setting_name(teacher): _setting(teacher, checked) for teacher, checked in teachers}
        complete, cut_off = _earlier(job, config.backend, wanted)
        done = {name for state in complete for name in _teachers_of(state)}
        groups = []
        for state in cut_off:
            if not done & _teachers_of(state).keys():
                mine = [one for one in teachers if _setting_name(one[0]) in _teachers_of(state)]
                groups.append([(teacher, _as_in(state, teacher, checked)) for teacher, checked in mine])
                done |= _teachers_of(state).keys()
        groups.append([_settled(job, *one) for one in teachers if _setting_name(one[0]) not in done])
        outputs = job.warehouse.outputs(config, "soft_labels", "rejected_pairs", "runs")
        reports = [_run_group(job, config, group, outputs) for group in groups if group]
        if not reports:
            last = complete[-1]
            by = f"{last.run.run_id} and before"
            say(f"all {len(teachers)} teachers have labelled these pairs, in {by}: nothing to do")
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
    backend = teacher.backend or config.backend
    return check_model(
        teacher.model, backend, teacher.precision, teacher.max_tokens, config.token_budget, teacher.prompting
    )


def _setting_name(teacher: Teacher) -> str:
    return TEACHER + teacher.id


def _setting(teacher: Teacher, checked: ScoringSettings) -> str:
    settings = ({} if teacher.backend is None else {"backend": teacher.backend}) | checked.export_setting
    settings |= checked.settled_setting
    more = "".join(f" {name}={value}" for name, value in settings.items())
    return f"{checked.model_version} max_tokens={teacher.max_tokens} precision={teacher.precision}{more}"


def _teachers_of(state: RunState) -> dict[str, str]:
    """The settings of a run's teachers as they were asked for, without what `auto` was settled to."""
    teachers = {name: value for name, value in state.run.settings.items() if name.startswith(TEACHER)}
    return {name: value.partition(_RUNS_AS)[0] for name, value in teachers.items()}


def _as_in(state: RunState, teacher: Teacher, checked: ScoringSettings) -> ScoringSettings:
    """The teacher as that run has it, which goes on."""
    return replace(checked, runs_as=state.run.settings[_setting_name(teacher)].partition(_RUNS_AS)[2] or None)


def _settled(job: PairsJob, teacher: Teacher, checked: ScoringSettings) -> Versioned:
    """The teacher with its precision settled on an executor, if that was left to `auto`."""
    if checked.precision != "auto":
        return teacher, checked
    runs_as, told = settle_in_a_task(job.spark, checked)
    say(f"{teacher.id}: {told}")
    return teacher, replace(checked, runs_as=runs_as)


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
        {f"{name} {one.id}": value for one, checked in teachers for name, value in checked.origin},
    )
    say(f"labelling with {', '.join(teacher.id for teacher, _ in teachers)}")
    state = job.ledger.find(identity, None)
    if state is None:
        state = job.start(identity, job.pairs.count(), per_pair=len(teachers))
    return job.complete(
        state,
        outputs,
        Output(outputs["soft_labels"], labelled_rows),
        lambda blocks, tasks: label_blocks(blocks, config, teachers, tasks),
        per_pair=len(teachers),
        doing="labelling",
    )


def transform(pairs: DataFrame, config: LabelConfig, teachers: list[Versioned], tasks: int | None = None) -> DataFrame:
    """Every pair once per teacher, with its label or with the reason why it has none: see `label_blocks`.

    Args:
        pairs: query_id, passage_id, query, passage (strings, any of them null).
        tasks: how many Spark tasks label them; None leaves it to Spark.
    """
    return label_blocks(blocks_of(pairs, groups_for(tasks)), config, teachers, tasks)


def label_blocks(
    blocks: DataFrame, config: LabelConfig, teachers: list[Versioned], tasks: int | None = None
) -> DataFrame:
    """Every row of blocks once per teacher, with its label or with the reason why it has none.

    Args:
        blocks: see `jobs.engine.blocks`.

    Returns:
        query_id, passage_id, content_hash, teacher_id, teacher_version, logit, score, tokens, padded_tokens, load_id,
        seconds, error_code, error_message; logit and score are null exactly where the error_code is not.
    """
    spark = blocks.sparkSession
    settings = tuple(replace(checked, model=ship(spark, checked.model)) for _, checked in teachers)
    labelled = dealt(blocks, tasks).withColumn("result", label_udf(settings, config.side_by_side)(*block_texts()))
    return rows_of(labelled, *(_outcome(number, *teacher) for number, teacher in enumerate(teachers)))


def _outcome(place: int, teacher: Teacher, checked: ScoringSettings) -> Outcome:
    """What the teacher of that place said of a row."""
    said = outcome_of(lambda name: F.col(f"result.{outcome_column(place, name)}"), LOGIT, SCORE)

    def outcome(number: Column, code: Column, message: Column) -> list[Column]:
        *results, own_code, own_message = said(number, code, F.lit(None).cast("string"))
        named = F.concat(F.lit(f"teacher {teacher.id}: "), own_message)
        return [
            F.lit(teacher.id).alias(TEACHER_ID),
            F.lit(checked.model_version).alias(TEACHER_VERSION),
            *results,
            own_code,
            F.coalesce(message, named).alias(ERROR_MESSAGE),
        ]

    return outcome


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


@one_line
def check(spark: SparkSession, config: LabelConfig) -> str:
    """Score some pairs in this process with each teacher, one after the other, so that an eye can judge it.

    Returns:
        A table: by pair the score of each teacher, or the code of its error, and the beginnings of the texts.

    Raises:
        ConfigError, ModelError, InputError: as for `run`; a teacher that does not load too.
    """
    teachers = _versioned(config)
    rows = PairsJob.read(spark, config, config.warehouse).pairs.rows.limit(CHECKED_PAIRS).collect()
    if not rows:
        raise InputError("there is no pair to score")
    queries, passages = [row[QUERY] for row in rows], [row[PASSAGE] for row in rows]
    columns = []
    for teacher, checked in teachers:
        said = score_here(checked, queries, passages)
        texts = [f"{one:.4f}" if isinstance(one, float) else one for one in said]
        width = max(map(len, (teacher.id, *texts)))
        columns.append([one.rjust(width) for one in (teacher.id, *texts)])
    pairs = [f"{_start(query)} | {_start(passage)}" for query, passage in zip(queries, passages, strict=True)]
    return "\n".join("  ".join(line) for line in zip(*columns, ["query | passage", *pairs], strict=True))


def _start(text: str | None) -> str:
    words = " ".join((text or "").split())
    return words if len(words) <= SHOWN else words[: SHOWN - 1] + "…"


def main(argv: Sequence[str] | None = None) -> None:
    """Label from the command line and print what was done."""
    config, cluster = parse_config("mkdm label", argv, LabelConfig, ClusterConfig)
    if config.check:
        here = replace(cluster, master=None, environment=None)
        print(check(start_session(here, f"mkdm label --check {config.warehouse}"), config))
        return
    spark = start_session(cluster, f"mkdm label {config.warehouse}")
    print("\n\n".join(str(report) for report in run(spark, config)))


if __name__ == "__main__":
    run_job(main)
