"""Where an evaluation takes scores from: a model that scores now, or a complete run whose scores are stored."""

import math
from dataclasses import dataclass, replace

import pandas as pd
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import StringType

from jobs.engine import (
    COMPLETE,
    ROWS_PER_TASK,
    SCORE_JOB,
    Ledger,
    RunState,
    Table,
    chain_of,
    say,
    score_pairs,
)
from mkdm.columns import CONTENT_HASH, ERROR_CODE, PAIR, PAIR_KEY, RUN_ID, SCORE
from mkdm.errors import InputError
from udfs.precision import settle_in_a_task
from udfs.scoring import RUNS_AS, ScoringSettings

TEXT_KEY = [*PAIR_KEY, CONTENT_HASH]
"""A pair with the texts that were scored."""


@dataclass(frozen=True)
class Source:
    """What gives scores.

    Attributes:
        name: the model as it was given, or the run's id.
        version: the model's.
    """

    name: str
    version: str

    def scores(self, labelled: DataFrame, count: int) -> pd.DataFrame:
        """Their scores; null, or no row, where there is none.

        Args:
            labelled: query_id, passage_id, query, passage, content_hash; `count` rows.

        Returns:
            query_id, passage_id, content_hash, score, error_code.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Model(Source):
    """A model folder, or an ensemble of them, that scores now."""

    settings: ScoringSettings

    def scores(self, labelled: DataFrame, count: int) -> pd.DataFrame:
        say(f"scoring {count:,} pairs with {self.name}")
        tasks = math.ceil(count / ROWS_PER_TASK)
        return collect(score_pairs(labelled.select(*PAIR), self.settings, tasks), SCORE, ERROR_CODE)


def scoring_model(ledger: Ledger, model: str, settings: ScoringSettings) -> Model:
    """A checked model that scores as `mkdm score` does: where `auto` was settled for a run of it, as that run has it.

    Raises:
        ModelError: the model does not load on an executor.
    """
    if settings.precision == "auto":
        asked = {name: str(getattr(settings, name)) for name in ("backend", "precision", "max_length")}
        asked |= settings.export_setting
        runs = ledger.states(job=SCORE_JOB, model_version=settings.model_version)
        known = [one.run.settings for one in runs if one.run.settings.items() >= asked.items()]
        runs_as = next((one[RUNS_AS] for one in reversed(known) if RUNS_AS in one), None)
        if runs_as is None:
            runs_as, told = settle_in_a_task(ledger.table.spark, settings)
            say(told)
        settings = replace(settings, runs_as=runs_as)
    return Model(model, settings.model_version, settings)


@dataclass(frozen=True)
class StoredRun(Source):
    """A complete scoring run, with the runs that it adds to."""

    run: RunState
    table: Table
    chain: tuple[str, ...]

    def scores(self, labelled: DataFrame, count: int) -> pd.DataFrame:
        mine = self.table.read().where(F.col(RUN_ID).isin(list(self.chain))).select(*TEXT_KEY, SCORE)
        found = mine.join(labelled.select(*TEXT_KEY).distinct(), TEXT_KEY, "left_semi")
        return collect(found.withColumn(ERROR_CODE, F.lit(None).cast("string")), SCORE, ERROR_CODE)


def stored_source(ledger: Ledger, scores: Table, run_id: str) -> StoredRun:
    """The run of that name.

    Raises:
        InputError: there is no such run, it is not complete, or a later run has replaced a part of its scores.
    """
    where = ledger.table.location
    state = RunState.of(ledger.rows(run_id=run_id))
    if state is None or state.run.job != SCORE_JOB:
        raise InputError(f"{where} has no scoring run {run_id}: see mkdm runs")
    if state.state != COMPLETE:
        raise InputError(f"run {run_id} of {where} is {state.state}, not complete: finish it first")
    if ledger.replaced_by(run_id):
        raise InputError(f"an incremental run has replaced scores of run {run_id}: evaluate that one")
    return StoredRun(run_id, state.run.model_version, state, scores, tuple(chain_of(ledger, run_id)))


def collect(rows: DataFrame, *names: str) -> pd.DataFrame:
    """Those columns and the keys on the driver; bytes of a text that are not UTF-8 become U+FFFD."""
    kinds = {name: rows.schema[name].dataType for name in (*TEXT_KEY, *names)}
    columns = [
        (F.make_valid_utf8(F.col(name)) if isinstance(kind, StringType) else F.col(name)).alias(name)
        for name, kind in kinds.items()
    ]
    frame: pd.DataFrame = rows.select(columns).toArrow().to_pandas()
    return frame


def join_scores(known: pd.DataFrame, scores: dict[str, pd.DataFrame]) -> tuple[pd.DataFrame, dict[str, str]]:
    """The labelled pairs that every side has scored, a column of scores per side, in the order of their keys.

    Returns:
        Them; and by side, in words, how many pairs it has not scored and why.
    """
    known = known.drop_duplicates(TEXT_KEY).sort_values(TEXT_KEY, ignore_index=True)
    found, missing = known, {}
    for side, scored in scores.items():
        codes = scored[ERROR_CODE].value_counts().sort_index()
        scored = scored.dropna(subset=[SCORE])[[*TEXT_KEY, SCORE]].rename(columns={SCORE: side})
        found = found.merge(scored, on=TEXT_KEY)
        without = len(known) - len(known.merge(scored, on=TEXT_KEY))
        reasons = ", ".join(f"{number:,} {code}" for code, number in codes.items())
        missing[side] = f"{without:,}" + (f" ({reasons})" if reasons else "")
    return found, missing
