"""The scoring UDF: blocks of queries, passages and pairs in; scores, or error codes and messages, out."""

import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pyspark import TaskContext
from pyspark.sql.pandas.functions import pandas_udf
from pyspark.sql.types import ArrayType, FloatType, IntegerType, StringType, StructField, StructType
from pyspark.sql.udf import UserDefinedFunction

from mkdm.columns import ERROR_CODE, ERROR_MESSAGE, LOAD_ID, PADDED_TOKENS, SCORE, SECONDS, TOKENS
from mkdm.errors import ModelError
from mkdm.model import (
    PLAIN,
    Prompting,
    backend_for,
    check_backend,
    check_max_length,
    checked_version,
    model_folders,
    pinned_models,
    read_wording,
)
from udfs.model import seen_by_tasks
from udfs.shipping import receive
from udfs.workers import keep_for_good, one_task

if TYPE_CHECKING:  # torch is imported on executors alone
    from mkdm.scoring import Block, PairScorer, WindowScores

RESULT = StructType(
    [
        StructField(SCORE, ArrayType(FloatType())),
        StructField(TOKENS, ArrayType(IntegerType())),
        StructField(PADDED_TOKENS, ArrayType(IntegerType())),
        StructField(ERROR_CODE, ArrayType(StringType())),
        StructField(ERROR_MESSAGE, ArrayType(StringType())),
        StructField(LOAD_ID, StringType()),
        StructField(SECONDS, FloatType()),
    ]
)
"""What came of a block: arrays in the order of its pairs, those of errors empty where there is none; and once a block,
by which load of the model, and in what time."""
BLOCK_PAIRS = 4096
"""Pairs of a block at most. A pair is one number: the place of its query times this, plus that of its passage."""
ANY_LENGTH = 1 << 20
"""Tokens, where how many there may be is not the question."""
RUNS_AS = "runs_as"
"""Among the settings of a run, what its `auto` was settled to."""
MAX_MESSAGE = 500
"""Characters of an error message that are kept."""

Batches = Iterator[tuple[pd.Series, pd.Series, pd.Series]]
"""By block an array of queries, one of passages, and one of packed pairs."""


@dataclass(frozen=True)
class ScoringSettings:
    """What decides a score, besides the texts.

    Attributes:
        model: folder of the model, at the same path on every executor; several joined by commas are averaged.
        model_version: the content hash that the folder must have there, and how it is asked in it.
        backend: auto, torch, torch-compile or openvino.
        precision: auto, fp32, bf16, fp16 or int8.
        max_length: tokens of a pair; None as the model was trained.
        token_budget: padded tokens of a batch; None as suits the device.
        export_version: what stands for the IR files that the folder must have there; None where none may be run.
        prompting: how the model is asked.
        origin: by name, where a registry or the hub keeps it; see `pinned_models`. It decides no score.
        runs_as: what `auto` was settled to for the run, see `mkdm.scoring.settle`; None where each executor chooses.
    """

    model: str
    model_version: str
    backend: str = "auto"
    precision: str = "auto"
    max_length: int | None = None
    token_budget: int | None = None
    export_version: str | None = None
    prompting: Prompting = PLAIN
    origin: tuple[tuple[str, str], ...] = ()
    runs_as: str | None = None

    @property
    def export_setting(self) -> dict[str, str]:
        """What of a checked model belongs to a run's fingerprint besides the version."""
        return {} if self.export_version is None else {"export": self.export_version}

    @property
    def settled_setting(self) -> dict[str, str]:
        """The same of what `auto` was settled to."""
        return {} if self.runs_as is None else {RUNS_AS: self.runs_as}


def check_model(
    model: str,
    backend: str,
    precision: str,
    max_length: int | None = None,
    token_budget: int | None = None,
    prompting: Prompting = PLAIN,
) -> ScoringSettings:
    """Check on the driver that a model can be run as wanted; the settings that hold executors to what is there now.

    Raises:
        ModelError: a folder is missing, incomplete or changed, is no model that scores pairs (see `check_fitness`), or
            lacks the IR file that is asked for; or its tokenizer joins the template with the texts.
        ConfigError: a backend has not that precision, or a model does not take that many tokens.
    """
    model, origin = pinned_models(model)
    model = seen_by_tasks(model)
    version = checked_version(model, prompting)
    for folder in model_folders(model):
        if (wording := read_wording(folder, prompting)) is not None:
            from mkdm.model import load_tokenizer  # transformers, which most drivers need not wait for
            from mkdm.scoring import pair_encoder

            pair_encoder(load_tokenizer(folder), ANY_LENGTH, wording)
    backend = backend_for(backend, prompting)
    check_max_length(model, max_length)
    export_version = check_backend(model, backend, precision)
    return ScoringSettings(
        model,
        version,
        backend,
        precision,
        max_length,
        token_budget,
        export_version,
        prompting,
        tuple(sorted(origin.items())),
    )


@dataclass(frozen=True)
class LoadedScorer:
    """A scorer and the id of the one load that made it: PRECISION-RANDOM@HOST:PROCESS; see `executor_name`."""

    scorer: "PairScorer"
    load_id: str


@lru_cache(maxsize=1)
def loaded_scorer(settings: ScoringSettings) -> LoadedScorer:
    """Load the model once in this Python worker; Spark keeps the worker from task to task. See `load`."""
    loaded = load(settings)
    keep_for_good()
    return loaded


def load(settings: ScoringSettings) -> LoadedScorer:
    """Load a model for the cores of the running task.

    Raises:
        ModelError: the folder here is not the one that the driver checked.
        ConfigError: a setting that the model or machine cannot meet.
        MachineError: the machine cannot run what the run was settled to.
    """
    from mkdm.scoring import load_scorer

    receive(settings.model)
    context = TaskContext.get()
    if context is not None:
        show_own_gpu(context)
    export = check_backend(settings.model, settings.backend, settings.precision)
    if export != settings.export_version:
        raise ModelError(
            f"the IR files at {settings.model} on this executor are version {export}, the driver's are "
            f"{settings.export_version}: give every machine the same folder"
        )
    scorer = load_scorer(
        settings.model,
        settings.backend,
        settings.precision,
        settings.max_length,
        settings.token_budget,
        threads=None if context is None else context.cpus(),
        prompting=settings.prompting,
        runs_as=settings.runs_as,
    )
    if scorer.model_version != settings.model_version:
        raise ModelError(
            f"the model at {settings.model} on this executor is version {scorer.model_version}, "
            f"the driver's is {settings.model_version}: give every machine the same folder"
        )
    return LoadedScorer(scorer, f"{scorer.precision}-{uuid.uuid4().hex}@{executor_name()}")


def executor_name() -> str:
    """HOST:PROCESS of what started this Python worker, which is one for all workers of an executor.

    Spark tells Python workers no executor id. Their parent is the executor's own daemon, which outlives a worker that
    dies, so that a second load in one executor counts for that executor.
    """
    return f"{socket.gethostname()}:{os.getppid()}"


def show_own_gpu(context: TaskContext) -> None:
    """Let CUDA see the GPUs that Spark gave to the task, and no others; where Spark deals out none, change nothing.

    CUDA asks once, when it is first used in a process. A worker stays with its executor, and that with its GPU.
    """
    gpu = context.resources().get("gpu")
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpu.addresses)


def score_udf(settings: ScoringSettings) -> UserDefinedFunction:
    """An iterator pandas UDF over blocks, `(queries, passages, pairs) -> RESULT`.

    It never fails over a pair: null or empty text, a query that leaves no room, and whatever tokenizer or model raise
    come back as error_code and error_message with a null score. It counts as non-deterministic, so that Spark does not
    run it once more for a filter on its result.

    Args:
        settings: from `check_model`.
    """
    score: Callable[[Batches], Iterator[pd.DataFrame]] = _block_scorer(settings)
    return pandas_udf(score, RESULT).asNondeterministic()  # type: ignore[call-overload,no-any-return]


def _block_scorer(settings: ScoringSettings) -> Callable[[Batches], Iterator[pd.DataFrame]]:
    def score(batches: Iterator[tuple[pd.Series, pd.Series, pd.Series]]) -> Iterator[pd.DataFrame]:
        yield from one_task(results(batches))

    def results(batches: Batches) -> Iterator[pd.DataFrame]:
        loaded = loaded_scorer(settings)
        began = time.perf_counter()
        for result in loaded.scorer.score_blocks(blocks_in(batches)):
            yield pd.DataFrame([block_result(result, loaded.load_id, time.perf_counter() - began)])
            began = time.perf_counter()

    return score


def blocks_in(batches: Batches) -> Iterator["Block"]:
    """The blocks of a task."""
    from mkdm.scoring import Block

    for batch in batches:
        for queries, passages, pairs in zip(*batch, strict=True):
            packed = np.asarray(pairs, dtype=np.int64)
            places = np.stack((packed // BLOCK_PAIRS, packed % BLOCK_PAIRS), axis=1)
            yield Block(list(queries), list(passages), places)


def block_result(result: "WindowScores", load_id: str, seconds: float) -> dict[str, object]:
    """What came of a block as the fields of RESULT."""
    size = len(result.scores)
    errors = [result.errors.get(row) for row in range(size)] if result.errors else []
    scores: list[float | None] | NDArray[np.float32] = result.scores
    if errors:
        scores = [None if error else float(score) for score, error in zip(result.scores, errors, strict=True)]
    return {
        SCORE: scores,
        TOKENS: result.tokens,
        PADDED_TOKENS: result.padded_tokens,
        ERROR_CODE: [error and str(error.code) for error in errors],
        ERROR_MESSAGE: [error and error.message[:MAX_MESSAGE] for error in errors],
        LOAD_ID: load_id,
        SECONDS: seconds,
    }


def texts(column: "pd.Series[str]") -> list[str | None]:
    """The values of a text column, with None for null."""
    return [value if isinstance(value, str) else None for value in column]
