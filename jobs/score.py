"""Scores all pairs of a table: `mkdm score`, which equals `spark-submit jobs/score.py`."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from pyspark.sql import DataFrame, SparkSession

from cluster.connect import is_connect
from cluster.session import ClusterConfig, gives_whole_executors, start_session, task_slots
from jobs.engine import (
    COMPLETE,
    SCORE_JOB,
    Changes,
    Identity,
    Output,
    PairsJob,
    PairsJobConfig,
    RunReport,
    RunState,
    Table,
    base_of,
    begin_to_replace,
    chain_of,
    changes_since,
    has_read,
    interpreted,
    is_laid_out,
    one_line,
    refuse_rejects,
    run_job,
    say,
    score_blocks,
    score_pairs,
    scored_rows,
    settings_of,
    settled_model,
    since,
    take_out,
)
from mkdm.columns import PAIR_KEY
from mkdm.config import parse_config, require_at_least
from mkdm.errors import ConfigError
from udfs.imports import import_ahead
from udfs.model import Prompting
from udfs.scoring import ScoringSettings, check_model

SETTINGS = ("backend", "precision", "max_length")
"""The flags that change a score, besides model and input: part of a run's fingerprint."""
PROMPTING = ("prompt", "template", "label")
"""How a model is asked, by the names of a zoo; where one is given, it is such a part too."""
RESULT_TABLES = ("scores", "rejected_pairs")
"""The tables that take the rows: every pair ends in one of the two."""
OUTPUTS = (*RESULT_TABLES, "runs")
RUN_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")


@dataclass(frozen=True)
class ScoreConfig(PairsJobConfig):
    """Score every pair of a table with a student or a teacher, from Delta to Delta.

    Raises:
        ConfigError: a number outside its range.
    """

    model: str
    """Folder of the model, the same on every machine, or a URI (s3a, abfss, gs, dbfs:/Volumes), fetched once per host;
    of MLflow models:/NAME@ALIAS, models:/NAME/VERSION or runs:/RUN/PATH, of the hub hf://OWNER/NAME[@REVISION], fetched
    by the driver and sent to the executors: a student of ours or a sequence-classification checkpoint. Several joined
    by commas are an ensemble, whose scores are averaged."""
    warehouse: str = "warehouse"
    """Where the tables are: a folder or URI, or CATALOG.SCHEMA."""
    scores: str | None = None
    """Table of scores, if not <warehouse>/scores."""
    precision: Literal["auto", "fp32", "bf16", "fp16", "int8"] = "auto"
    """Number format of the model. auto is settled once a run, by a short timed run on an executor: of exports that
    passed their gate, the most exact one but where another is clearly quicker. A run that goes on keeps it, and fewer
    than 1,000 pairs run in fp32 where there are no exports."""
    max_length: int | None = None
    """Tokens of a pair at most, special tokens included; the passage is cut. Default: as the model was trained."""
    prompt: str | None = None
    """The task in words, as in a zoo; default: the model's own. Without a template it stands before the query."""
    template: str | None = None
    """The text of a pair, with {query} before {passage}, and {prompt} where it has one; or chat, for the tokenizer's
    chat template. Default: as the model's card says, or as its tokenizer joins two texts."""
    label: str | None = None
    """What means relevant: name or number of a classifier's label, or the word that a generative model answers."""
    incremental: bool = False
    """Score only pairs that came or whose text changed since the last complete run of this model and these settings."""
    run_id: str | None = None
    """Name of the run; default: made of its fingerprint. A name that was used goes on with that run, or is refused."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(self, 1, "max_length")
        for name in PROMPTING:
            if getattr(self, name) == "":
                raise ConfigError(f"--{name} is empty: leave it out")
        if self.run_id is not None and not RUN_NAME.match(self.run_id):
            raise ConfigError(
                f"--run-id is {self.run_id!r}; it takes up to 100 letters, digits, dots, hyphens, underscores"
            )

    @property
    def prompting(self) -> Prompting:
        """How the model is asked."""
        return Prompting(self.prompt, self.template, self.label)


@one_line
def run(spark: SparkSession, config: ScoreConfig) -> RunReport:
    """Score the pairs into `scores` and `rejected_pairs`; run again, the same run goes on or finds itself complete.

    Raises:
        ConfigError: a setting that the model, or the run that it names, cannot meet.
        ModelError: the model folder is missing, incomplete or changed, lacks the IR file that is asked for, or takes no
            such prompt, template or label.
        InputError: the pairs are missing, empty, or lack a column or its type; or an incremental run cannot tell what
            changed in them.
        RejectRateError: more pairs were rejected than allowed; all that was scored is kept.
        RunFailedError: a task failed for good, or rows went missing.
    """
    model = checked_model(config)
    with interpreted(spark) as compile_queries:
        job = PairsJob.read(spark, config, config.warehouse, compile_queries)
        _say_workers(spark, model)
        said = tuple(name for name in PROMPTING if getattr(config, name) is not None)
        settings = settings_of(config, (*SETTINGS, *said)) | model.export_setting
        asked = Identity(SCORE_JOB, settings, job.pairs.versions, model.model_version, dict(model.origin))
        model = settled_model(job, asked, model, config.run_id, config.incremental)
        identity = replace(asked, settings=settings | model.settled_setting)
        base = base_of(job.ledger, identity, job.pairs) if config.incremental else None
        if config.incremental and base is None:
            say("no complete run of this model and these settings to add to: scoring all pairs")
        if base is not None:
            report = incremental_run(job, config, model, identity, base)
        elif (state := started_before(job, config, identity)) is not None:
            report = resumed_run(job, config, model, state)
        else:
            report = new_run(job, config, model, identity)
    refuse_rejects(report, config.max_reject_rate)
    return report


def _say_workers(spark: SparkSession, model: ScoringSettings) -> None:
    """Over Spark Connect the server decides what a task gets: say what that means for the model."""
    if not is_connect(spark) or gives_whole_executors(spark):
        return
    text = "this session does not give a task all cores of its executor: each of its Python workers loads the model"
    if model.export_version is None:
        text += "; mkdm export-model makes files of it that need no torch there, and whose weights workers share"
    say(text)


def new_run(job: PairsJob, config: ScoreConfig, model: ScoringSettings, identity: Identity) -> RunReport:
    """Score all pairs in a run that was not started before."""
    import_ahead(job.spark, model, task_slots(job.spark))
    rows = job.pairs.count()
    outputs = job.warehouse.outputs(config, *OUTPUTS)
    return score_chunks(job, config, model, job.start(identity, rows, config.run_id), outputs)


def resumed_run(job: PairsJob, config: ScoreConfig, model: ScoringSettings, state: RunState) -> RunReport:
    """Score the chunks that a run over all pairs lacks: none, if it is complete."""
    if state.state != COMPLETE:
        import_ahead(job.spark, model, task_slots(job.spark))
    return score_chunks(job, config, model, state, job.warehouse.outputs(config, *OUTPUTS))


def incremental_run(
    job: PairsJob, config: ScoreConfig, model: ScoringSettings, identity: Identity, base: RunState
) -> RunReport:
    """Score what changed since the base run, then take out what it had written for those keys; resumed like any run."""
    outputs = job.warehouse.outputs(config, *OUTPUTS)
    if has_read(base, identity):
        say(f"nothing changed since run {base.run.run_id}")
        return RunReport.of(base.run, base.totals, outputs)
    job.compile_queries()
    import_ahead(job.spark, model, task_slots(job.spark))
    identity = since(identity, base)
    state = started_before(job, config, identity)
    if state is not None and is_laid_out(job.warehouse, state.run):  # then it is known what changed
        nothing = job.pairs.rows.limit(0)
        return score_changes(job, config, model, state, outputs, Changes.of(job.pairs, nothing.select(*PAIR_KEY)))
    changes = changes_since(job.pairs, base, job.ledger, outputs["scores"], outputs["rejected_pairs"])
    try:
        state = state or job.start(identity, changes.rows.count(), config.run_id)
        return score_changes(job, config, model, state, outputs, changes)
    finally:
        changes.release()


def score_changes(
    job: PairsJob,
    config: ScoreConfig,
    model: ScoringSettings,
    state: RunState,
    outputs: dict[str, Table],
    changes: Changes,
) -> RunReport:
    """Score the rows of the keys that were touched, then take out what the runs before wrote for these keys."""
    earlier = chain_of(job.ledger, state.run.run_id)[1:]

    def replace_touched(laid_out: DataFrame) -> None:
        begin_to_replace(job.ledger, state.run)
        for name in RESULT_TABLES:
            take_out(outputs[name], laid_out, earlier)

    return score_chunks(
        job, config, model, state, outputs, pairs=changes.rows, gone=changes.gone, finish=replace_touched
    )


def started_before(job: PairsJob, config: ScoreConfig, identity: Identity) -> RunState | None:
    """The run of that identity, if it was started, with the cut into chunks that it then got.

    Raises:
        ConfigError: the run that is named is another one, or is cut otherwise than asked.
    """
    state = job.ledger.find(identity, config.run_id)
    if state is not None and config.chunks not in ("auto", state.run.chunks):
        raise ConfigError(f"run {state.run.run_id} is cut into {state.run.chunks} chunks: leave --chunks out")
    return state


def score_chunks(
    job: PairsJob, config: ScoreConfig, model: ScoringSettings, state: RunState, outputs: dict[str, Table], **more: Any
) -> RunReport:
    """Score the chunks that a run lacks; `more` goes to `PairsJob.complete`."""
    results = Output(outputs["scores"], scored_rows)
    return job.complete(state, outputs, results, lambda blocks, tasks: score_blocks(blocks, model, tasks), **more)


def transform(
    pairs: DataFrame, config: ScoreConfig, tasks: int | None = None, model: ScoringSettings | None = None
) -> DataFrame:
    """Every pair with its score, or with the reason why it has none: `score_pairs` with the model of a config.

    Args:
        pairs: query_id, passage_id, query, passage (strings, any of them null).
        tasks: how many Spark tasks score them; None leaves it to Spark.
        model: what every executor must find at the model's folder; None takes it as it is now.

    Returns:
        query_id, passage_id, content_hash, score, tokens, padded_tokens, load_id, seconds, error_code, error_message;
        the score is null exactly where the error_code is not. Of rows with the same key, one is scored.
    """
    return score_pairs(pairs, model or checked_model(config), tasks)


def checked_model(config: ScoreConfig) -> ScoringSettings:
    """The model of a config, checked on the driver; see `check_model`."""
    return check_model(
        config.model, config.backend, config.precision, config.max_length, config.token_budget, config.prompting
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Score from the command line and print what was done."""
    config, cluster = parse_config("mkdm score", argv, ScoreConfig, ClusterConfig)
    spark = start_session(cluster, f"mkdm score {config.warehouse}")
    print(run(spark, config))


if __name__ == "__main__":
    run_job(main)
