"""Trains the runs of a plan, or goes on with them, and makes tables of what they reached: `mkdm experiments`."""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import (
    ArrayType,
    DataType,
    DoubleType,
    IntegerType,
    LongType,
    StringType,
    StructField,
    StructType,
)

from cluster.session import ClusterConfig, start_session
from jobs.engine import Warehouse, one_line, run_job
from mkdm.config import parse_config
from mkdm.errors import RunFailedError

_TEXT, _INT, _LONG, _FLOAT = StringType(), IntegerType(), LongType(), DoubleType()
_LIST = ArrayType(_TEXT)
SCHEMAS: dict[str, dict[str, DataType]] = {
    "experiments": {
        "run": _TEXT,
        "seed": _INT,
        "state": _TEXT,
        "tables": _LIST,
        "note": _TEXT,
        "teachers": _LIST,
        "layers": _INT,
        "parameters": _LONG,
        "device": _TEXT,
        "seconds": _FLOAT,
        "settings": _TEXT,
        "split": _TEXT,
        "source": _TEXT,
        "pairs": _LONG,
        "queries": _LONG,
        "accuracy": _FLOAT,
        "auc": _FLOAT,
        "auc_low": _FLOAT,
        "auc_high": _FLOAT,
    },
    "experiment_steps": {
        "run": _TEXT,
        "seed": _INT,
        "stage": _TEXT,
        "step": _LONG,
        "pairs_seen": _LONG,
        "auc": _FLOAT,
        "accuracy": _FLOAT,
        "seconds": _FLOAT,
    },
    "experiment_latency": {
        "run": _TEXT,
        "device": _TEXT,
        "precision": _TEXT,
        "pairs_per_s": _FLOAT,
        "p50_ms": _FLOAT,
        "p99_ms": _FLOAT,
    },
}
"""By table, its columns; before them the plan's name. Each call replaces the rows of its plan."""


@dataclass(frozen=True)
class ExperimentsConfig:
    """Train the runs of a plan, each from where it was left, and write their figures to tables."""

    plan: str
    """YAML file with the runs; its name without the ending is the plan's in the tables."""
    sets: str
    """Training sets by name, as NAME=FOLDER joined by commas; valid and test among them, with such a split."""
    encoders: str
    """Pretrained encoders by name, as NAME=FOLDER joined by commas."""
    output: str
    """Local folder for students, labels and scores; what is there already is not done again."""
    warehouse: str = "warehouse"
    """Where the tables are: a folder or URI, or CATALOG.SCHEMA."""
    parallel: int = 1
    """Runs at once, each in a process of its own; they share one GPU."""
    latency_pairs: str | None = None
    """Parquet file with query_id, passage_id, query, passage, to time the plan's students on, one pair at a time."""
    only: str | None = None
    """Runs to train, joined by commas, with the teachers that they need; default: all of the plan."""
    seconds: float | None = None
    """Seconds after which training stops, wherever the runs are; the same command goes on."""
    train: bool = True
    """Whether to train what is missing; false makes the tables of what is there."""


@one_line
def run(spark: SparkSession, config: ExperimentsConfig) -> dict[str, int]:
    """Train in processes of their own, then replace the plan's rows in the tables.

    Returns:
        By table, how many rows the plan has there.

    Raises:
        RunFailedError: a run failed, time was up, or the plan is at fault; the tables hold what was reached.
    """
    fault = _process("mkdm.experiments", config) if config.train else None
    missing = _process("mkdm.experiments.results", config)
    if missing:
        raise RunFailedError(fault or missing)
    plan, warehouse = Path(config.plan).stem, Warehouse(spark, config.warehouse)
    kinds = {"table": _TEXT} | {name: kind for columns in SCHEMAS.values() for name, kind in columns.items()}
    schema = StructType([StructField(name, kind) for name, kind in kinds.items()])
    told = spark.read.schema(schema).json(str(Path(config.output, "results.jsonl").resolve()))
    counts = {}
    for name, columns in SCHEMAS.items():
        rows = told.where(F.col("table") == name).select(F.lit(plan).alias("plan"), *columns)
        counts[name] = rows.count()
        warehouse.table(name).replace(rows, "plan", plan)
    if fault:
        raise RunFailedError(fault)
    return counts


def _process(module: str, config: ExperimentsConfig) -> str | None:
    """Run a module that imports torch; returns the last line of its stderr if it fails."""
    command = [sys.executable, "-P", "-m", module]
    for field in fields(config):
        value = getattr(config, field.name)
        if field.name not in ("warehouse", "train") and value is not None:
            command.append(f"--{field.name.replace('_', '-')}={value}")
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode == 0:
        return None
    return (done.stderr.strip().splitlines() or [f"{module} exited {done.returncode}"])[-1].removeprefix("error: ")


def main(argv: Sequence[str] | None = None) -> None:
    """Train from the command line and say how many rows the tables have."""
    config, cluster = parse_config("mkdm experiments", argv, ExperimentsConfig, ClusterConfig)
    for name, rows in run(start_session(cluster, f"mkdm experiments {config.plan}"), config).items():
        print(f"{name:<20}{rows:>8,} rows")


if __name__ == "__main__":
    run_job(main)
