"""The ledger of runs: what makes two runs the same, and the rows of `runs` that say how far one has come."""

import hashlib
import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from pyspark.sql.functions import col

from jobs.warehouse import SCHEMAS, Table
from mkdm import __version__

STARTED, COMPLETE, FAILED = "started", "complete", "failed"


@dataclass(frozen=True)
class Run:
    """One run of a job: same job, same settings and same input make the same run.

    Attributes:
        run_id: names the run in every table it writes.
        fingerprint: hash of all that decides its output.
        input_versions: by input, the version it was read at.
    """

    run_id: str
    job: str
    fingerprint: str
    input_versions: dict[str, str]
    model_version: str
    started_at: datetime


@dataclass(frozen=True)
class Totals:
    """What a run did, as in `runs`.

    Attributes:
        tokens: tokens of the scored pairs, special tokens included, padding left out.
        padding_ratio: share of padding among the tokens that the model computed.
        seconds: wall time of the run, from its start to its last commit.
    """

    rows_read: int
    rows_written: int
    rows_rejected: int
    tokens: int
    padding_ratio: float
    model_loads: int
    seconds: float


def new_run(job: str, settings: dict[str, Any], input_versions: dict[str, str], model_version: str) -> Run:
    """The run that these settings and inputs make; its id follows from its fingerprint."""
    content = {"job": job, "settings": settings, "inputs": input_versions, "model": model_version}
    fingerprint = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]
    return Run(f"{job}-{fingerprint[:16]}", job, fingerprint, input_versions, model_version, datetime.now(UTC))


def record(runs: Table, run: Run, state: str, totals: Totals | None = None, chunk: int = 0) -> None:
    """Append a row to `runs`: that a chunk was started, is complete, or failed. A repeated completion adds nothing."""
    now = datetime.now(UTC)
    row = asdict(run) | {"chunk": chunk, "state": state, "engine_version": __version__}
    row |= asdict(totals) if totals else {}
    row["finished_at"] = now if totals else None
    schema = SCHEMAS["runs"]
    rows = runs.spark.createDataFrame([tuple(row.get(name) for name in schema.names)], schema)
    transaction = f"{run.fingerprint}-{chunk}-{state}"
    runs.append(rows, transaction if state == COMPLETE else f"{transaction}-{now.isoformat()}")


def completed(runs: Table, run: Run) -> Totals | None:
    """The totals of this run, if it is complete already."""
    done = runs.read().where((col("fingerprint") == run.fingerprint) & (col("state") == COMPLETE)).first()
    return None if done is None else Totals(**{name: done[name] for name in Totals.__dataclass_fields__})
