"""The labelling UDF: blocks of queries, passages and pairs in; what every teacher says of each pair out."""

import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING

import pandas as pd
from pyspark.sql.pandas.functions import pandas_udf
from pyspark.sql.types import ArrayType, FloatType, StructField, StructType
from pyspark.sql.udf import UserDefinedFunction

from mkdm.columns import LOGIT
from mkdm.scoring import memory_bytes
from udfs.scoring import RESULT, Batches, LoadedScorer, ScoringSettings, block_result, blocks_in, load
from udfs.shipping import receive
from udfs.workers import keep_for_good, one_task

if TYPE_CHECKING:  # torch is imported on executors alone
    from mkdm.scoring import Block

OUTCOME = StructType([StructField(LOGIT, ArrayType(FloatType())), *RESULT.fields])
"""What one teacher says of a block: the logits, and what scoring gives, of which `score` are its probabilities."""
MEMORY_SHARE = 0.5
"""Share of the free memory that all teachers may take before they are loaded one after the other."""


def outcome_column(teacher: int, name: str) -> str:
    """The column of the UDF's result that holds a field of OUTCOME for the teacher of that number."""
    return f"t{teacher}_{name}"


def label_udf(teachers: tuple[ScoringSettings, ...], side_by_side: str) -> UserDefinedFunction:
    """An iterator pandas UDF over blocks, `(queries, passages, pairs) -> the fields of OUTCOME, once per teacher`.

    Like `score_udf` it never fails over a pair, and counts as non-deterministic.

    Args:
        teachers: checked on the driver.
        side_by_side: always: all teachers stay loaded from task to task; never: one at a time, which a task loads after
            the other and runs over all its rows; auto: as the executor's free memory allows.
    """
    schema = StructType(
        [
            StructField(outcome_column(number, field.name), field.dataType)
            for number in range(len(teachers))
            for field in OUTCOME.fields
        ]
    )
    label: Callable[[Batches], Iterator[pd.DataFrame]] = _block_labeller(teachers, side_by_side)
    return pandas_udf(label, schema).asNondeterministic()  # type: ignore[call-overload,no-any-return]


def _block_labeller(
    teachers: tuple[ScoringSettings, ...], side_by_side: str
) -> Callable[[Batches], Iterator[pd.DataFrame]]:
    def label(batches: Iterator[tuple[pd.Series, pd.Series, pd.Series]]) -> Iterator[pd.DataFrame]:
        yield from one_task(results(batches))

    def results(batches: Batches) -> Iterator[pd.DataFrame]:
        if side_by_side == "always" or (side_by_side == "auto" and fit_in_memory(teachers)):
            loaded = kept_teachers(teachers)
            for block in blocks_in(batches):
                yield _joined([_outcome(teacher, block) for teacher in loaded])
            return
        task = list(blocks_in(batches))  # the texts of one task, which are small beside a model
        by_teacher = []
        for settings in teachers:
            loaded_teachers.cache_clear()  # the one before makes room
            (teacher,) = loaded_teachers((settings,))
            by_teacher.append([_outcome(teacher, block) for block in task])
        for outcomes in zip(*by_teacher, strict=True):
            yield _joined(list(outcomes))

    return label


def score_here(settings: ScoringSettings, queries: list[str | None], passages: list[str | None]) -> list[float | str]:
    """Score n pairs in this process; of one that has no score, the error code.

    Raises:
        ModelError: the model does not load.
        ConfigError: a setting that the machine cannot meet.
    """
    result = load(settings).scorer.score_window(queries, passages)
    errors = {row: str(error.code) for row, error in result.errors.items()}
    return [errors.get(row, float(score)) for row, score in enumerate(result.scores)]


@lru_cache(maxsize=1)
def loaded_teachers(teachers: tuple[ScoringSettings, ...]) -> list[LoadedScorer]:
    """Load teachers side by side, once in this Python worker; see `udfs.scoring.load`."""
    return [load(settings) for settings in teachers]


@lru_cache(maxsize=1)
def kept_teachers(teachers: tuple[ScoringSettings, ...]) -> list[LoadedScorer]:
    """The same for teachers that stay as long as the worker does."""
    loaded = loaded_teachers(teachers)
    keep_for_good()
    return loaded


def fit_in_memory(teachers: tuple[ScoringSettings, ...]) -> bool:
    """Whether all teachers, in fp32, take no more than their share of the memory that is free here."""
    for settings in teachers:
        receive(settings.model)
    needed = sum(memory_bytes(settings.model) for settings in teachers)
    return needed <= MEMORY_SHARE * _free_bytes()


def _free_bytes() -> float:
    """Free memory of this machine; without bound where the system does not tell."""
    try:
        with open("/proc/meminfo") as lines:
            fields = dict(line.split(":", 1) for line in lines)
        return float(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        return float("inf")


def _outcome(teacher: LoadedScorer, block: "Block") -> dict[str, object]:
    began = time.perf_counter()
    result = next(teacher.scorer.score_blocks(iter((block,))))
    logits = [None if row in result.errors else float(logit) for row, logit in enumerate(result.logits)]
    return {LOGIT: logits, **block_result(result, teacher.load_id, time.perf_counter() - began)}


def _joined(outcomes: list[dict[str, object]]) -> pd.DataFrame:
    """The outcomes of all teachers over a block, as one row."""
    named = (
        {outcome_column(number, name): value for name, value in outcome.items()}
        for number, outcome in enumerate(outcomes)
    )
    return pd.DataFrame([{name: value for one in named for name, value in one.items()}])
