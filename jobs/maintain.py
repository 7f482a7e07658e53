"""Compacts, clusters and vacuums the tables of a warehouse, without taking a version from a run: `mkdm maintain`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from pyspark.sql import SparkSession
from pyspark.sql.functions import col

from cluster.session import ClusterConfig, start_session
from jobs.engine import (
    COMPLETE,
    REMOVED,
    TABLES,
    Ledger,
    RunState,
    Table,
    Warehouse,
    drop_staging,
    one_line,
    run_job,
    staging,
    with_settings,
)
from mkdm.config import parse_config
from mkdm.errors import ConfigError, InputError

SAFE_HOURS = 168.0
"""Delta's own default: a reader or writer that takes longer than a week is not expected."""
_CHECK = "spark.databricks.delta.retentionDurationCheck.enabled"
_INPUTS = ("pairs", "passages", "queries", "documents", "query_documents")
"""Of the versions that a run has pinned, those of tables that it reads until it is done."""


@dataclass(frozen=True)
class MaintainConfig:
    """Compact small files, cluster by query_id, and remove files that no version within the retention needs.

    Raises:
        ConfigError: a retention that is not safe.
    """

    warehouse: str = "warehouse"
    """Where the tables are: a folder or URI, or CATALOG.SCHEMA."""
    tables: list[str] = field(default_factory=lambda: list(TABLES))
    """Which tables; those that are not there are left out, and so are pairs of another maker, unless they are named."""
    optimize: bool = True
    """Whether to compact and cluster."""
    vacuum: bool = True
    """Whether to remove files of old versions."""
    retention_hours: float = SAFE_HOURS
    """How long old versions stay readable."""
    allow_short_retention: bool = False
    """Accept less than a week: only when nothing else reads or writes the tables."""

    def __post_init__(self) -> None:
        if self.retention_hours < SAFE_HOURS and not self.allow_short_retention:
            raise ConfigError(
                f"--retention-hours is {self.retention_hours:g}; under {SAFE_HOURS:g} a running job or reader may lose "
                f"its files: pass --allow-short-retention true when there is none"
            )


@dataclass(frozen=True)
class TableCare:
    """What was done to one table: files and bytes of its newest version, before and after, and files removed."""

    name: str
    files_before: int
    files_after: int
    bytes_before: int
    bytes_after: int
    removed: int


@one_line
def run(spark: SparkSession, config: MaintainConfig) -> list[TableCare]:
    """Care for the tables one by one.

    Raises:
        InputError: none of the tables is there, or a run that is not finished still reads a version that would go.
    """
    warehouse = Warehouse(spark, config.warehouse)
    there = {name: table for name in config.tables if (table := warehouse.table(name)).exists()}
    if config.tables == list(TABLES):  # a table of pairs that somebody else wrote is theirs, unless it is named
        there = {name: table for name, table in there.items() if not TABLES[name].built or table.built()}
    if not there:
        raise InputError(f"{config.warehouse} has none of the tables {', '.join(config.tables)}")
    states = Ledger(warehouse.table("runs")).states()
    if config.vacuum:
        for table in there.values():
            _refuse_if_read(warehouse, table, states, config.retention_hours)
    for state in states:
        if state.state == COMPLETE:  # by a driver that was killed before it cleaned up
            drop_staging(warehouse, state.run)
    return [_care(name, table, config) for name, table in there.items()]


def _refuse_if_read(warehouse: Warehouse, table: Table, states: list[RunState], hours: float) -> None:
    """A version's files go when they were replaced before the horizon, that is, when its next version is older."""
    table_id = table.table_id()
    horizon = datetime.now(UTC) - timedelta(hours=hours)
    for state in states:
        inputs = {name: version for name, version in state.run.input_versions.items() if name in _INPUTS}
        version = next((one for one in inputs.values() if one.partition("@")[0] == table_id), None)
        if state.state in (COMPLETE, REMOVED) or version is None:
            continue
        if "pairs" in inputs and staging(warehouse, state.run, "pairs").exists():  # it has its own copy
            continue
        history = table.history().where(col("version") > int(version.partition("@")[2]))
        oldest = history.selectExpr("min(unix_millis(timestamp)) AS ms").collect()[0]["ms"]
        if oldest is not None and oldest / 1000 < horizon.timestamp():
            raise InputError(
                f"run {state.run.run_id} is {state.state} and reads version {version.partition('@')[2]} of "
                f"{table.location}, whose files VACUUM would remove: finish it, give it up with mkdm runs --remove "
                f"{state.run.run_id}, or raise --retention-hours"
            )


def _care(name: str, table: Table, config: MaintainConfig) -> TableCare:
    before = table.detail("numFiles", "sizeInBytes", "clusteringColumns")
    kind = TABLES.get(name)
    if config.optimize:
        by = kind.cluster_by if kind is not None and (not kind.built or table.built()) else None
        if by and by in table.read().columns and before["clusteringColumns"] != [by]:  # made by an earlier engine
            table.spark.sql(f"ALTER TABLE {table.sql_name} CLUSTER BY ({by})")
        foreign = name == "pairs" and not table.built() and not before["clusteringColumns"]
        table.spark.sql(f"OPTIMIZE {table.sql_name}" + (" ZORDER BY (query_id)" if foreign else ""))
    removed = 0
    if config.vacuum:
        # Delta's own check stays on, unless a short retention was allowed
        check = {} if config.retention_hours >= SAFE_HOURS else {_CHECK: "false"}
        with with_settings(table.spark, check):
            table.spark.sql(f"VACUUM {table.sql_name} RETAIN {config.retention_hours:f} HOURS")
        removed = _removed(table)
    after = table.detail("numFiles", "sizeInBytes")
    return TableCare(name, before["numFiles"], after["numFiles"], before["sizeInBytes"], after["sizeInBytes"], removed)


def _removed(table: Table) -> int:
    """Files that the VACUUM just now removed, as its own entry of the history says."""
    history = table.history(1).where("operation LIKE 'VACUUM%'").select("operationMetrics").first()
    return int(history["operationMetrics"].get("numDeletedFiles", 0)) if history else 0


def table_of(cares: list[TableCare]) -> str:
    """What was done, a line per table."""
    head = f"{'table':<18}{'files':>18}{'MB':>22}{'removed files':>15}"
    lines = [
        f"{care.name:<18}{f'{care.files_before:,} → {care.files_after:,}':>18}"
        f"{f'{care.bytes_before / 1e6:,.1f} → {care.bytes_after / 1e6:,.1f}':>22}{care.removed:>15,}"
        for care in cares
    ]
    return "\n".join([head, *lines])


def main(argv: Sequence[str] | None = None) -> None:
    """Maintain from the command line and print what was done."""
    config, cluster = parse_config("mkdm maintain", argv, MaintainConfig, ClusterConfig)
    print(table_of(run(start_session(cluster, f"mkdm maintain {config.warehouse}", whole_executor=False), config)))


if __name__ == "__main__":
    run_job(main)
