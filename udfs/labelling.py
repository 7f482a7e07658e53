"""The labelling UDF: query and passage in; logit and probability, or an error, of every teacher out."""

import time
from collections.abc import Callable, Iterator
from functools import lru_cache

import pandas as pd
from pyspark.sql.pandas.functions import pandas_udf
from pyspark.sql.types import FloatType, StructField, StructType
from pyspark.sql.udf import UserDefinedFunction

from mkdm.columns import LOGIT
from mkdm.scoring import memory_bytes
from udfs.scoring import RESULT, LoadedScorer, ScoringSettings, load, result_frame, texts

OUTCOME = StructType([StructField(LOGIT, FloatType()), *RESULT.fields])
"""What one teacher says of a pair: its logit, and the columns of scoring, of which `score` is its probability."""
MEMORY_SHARE = 0.5
"""Share of the free memory that all teachers may take before they are loaded one after the other."""

PAIRS_PER_TURN = 512
"""Pairs that all teachers label before their results go back: enough for tight batches, few enough for the progress."""
Batch = tuple[pd.Series, pd.Series]


def outcome_column(teacher: int, name: str) -> str:
    """The column of the UDF's result that holds a field of OUTCOME for the teacher of that number."""
    return f"t{teacher}_{name}"


def label_udf(teachers: tuple[ScoringSettings, ...], side_by_side: str) -> UserDefinedFunction:
    """An iterator pandas UDF `(query, passage) -> the fields of OUTCOME, once per teacher`.

    Like `score_udf` it never fails over a row, and counts as non-deterministic.

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
    label: Callable[[Iterator[Batch]], Iterator[pd.DataFrame]] = _batch_labeller(teachers, side_by_side)
    return pandas_udf(label, schema).asNondeterministic()  # type: ignore[call-overload,no-any-return]


def _batch_labeller(
    teachers: tuple[ScoringSettings, ...], side_by_side: str
) -> Callable[[Iterator[Batch]], Iterator[pd.DataFrame]]:
    def label(batches: Iterator[Batch]) -> Iterator[pd.DataFrame]:
        if side_by_side == "always" or (side_by_side == "auto" and fit_in_memory(teachers)):
            loaded = loaded_teachers(teachers)
            for batch in _windows(batches):
                yield _joined([_outcome(teacher, batch) for teacher in loaded])
            return
        task = list(_windows(batches))  # the texts of one task, which are small beside a model
        by_teacher = []
        for settings in teachers:
            loaded_teachers.cache_clear()  # the one before makes room
            (teacher,) = loaded_teachers((settings,))
            by_teacher.append([_outcome(teacher, batch) for batch in task])
        for outcomes in zip(*by_teacher, strict=True):
            yield _joined(list(outcomes))

    return label


@lru_cache(maxsize=1)
def loaded_teachers(teachers: tuple[ScoringSettings, ...]) -> list[LoadedScorer]:
    """Load teachers side by side, once in this Python worker; see `udfs.scoring.load`."""
    return [load(settings) for settings in teachers]


def fit_in_memory(teachers: tuple[ScoringSettings, ...]) -> bool:
    """Whether all teachers, in fp32, take no more than their share of the memory that is free here."""
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


def _windows(batches: Iterator[Batch]) -> Iterator[Batch]:
    for queries, passages in batches:
        for start in range(0, len(queries), PAIRS_PER_TURN):
            yield queries[start : start + PAIRS_PER_TURN], passages[start : start + PAIRS_PER_TURN]


def _outcome(teacher: LoadedScorer, batch: Batch) -> pd.DataFrame:
    began = time.perf_counter()
    result = teacher.scorer.score_window(texts(batch[0]), texts(batch[1]))
    frame = result_frame(result, teacher.load_id, time.perf_counter() - began)
    frame.insert(0, LOGIT, pd.Series(result.logits).where(frame["score"].notna()))
    return frame


def _joined(outcomes: list[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat([frame.add_prefix(outcome_column(number, "")) for number, frame in enumerate(outcomes)], axis=1)
