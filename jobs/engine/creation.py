"""How a table of the engine is made, and how one that an earlier engine made gets what it lacks."""

from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame

from jobs.engine.faults import told
from jobs.engine.place import literal
from jobs.engine.schemas import PINNED, READER_VERSION, TableKind
from jobs.engine.snapshot import Snapshot
from jobs.engine.table import Table, despite_conflicts
from mkdm.errors import ConfigError

_DEFAULTS = "spark.databricks.delta.properties.defaults"
_CHECK = "delta.constraints."
"""How the table property of a check begins, by which a new table has its checks from its one commit on."""
_LAST_OF_TWO_BYTES = 0xFFFF
"""In UTF-16; Delta's parser looks for CLUSTER BY of CREATE TABLE one letter off for each other one before it."""


def create(table: Table, kind: TableKind) -> None:
    """Create the table empty, unless it is there; a table of an earlier engine gets what it lacks.

    Raises:
        ConfigError: the place cannot hold a table, such as a schema that does not exist; or a table is there that is
            not of this kind, or that readers of Delta's first protocol cannot read.
    """
    try:
        if not table.exists():
            despite_conflicts(lambda: _create_empty(table, kind))
        rows = table.read()
        found = table.snapshot(rows)
        _check_protocol(table, found)
        columns = _columns(table, kind, rows)
        has = found.properties
        lacks = {name: value for name, value in kind.properties.items() if has.get(name) != value}
        if lacks:
            table.set_properties(lacks)
        new = [f"{field.name} {field.dataType.simpleString()}" for field in kind.schema if field.name not in columns]
        if new:
            table.spark.sql(f"ALTER TABLE {table.sql_name} ADD COLUMNS ({', '.join(new)})")
        for name, check in kind.checks.items():
            if f"{_CHECK}{name}" not in has:
                _add_check(table, name, check)
    except AnalysisException as error:
        raise ConfigError(f"cannot create the table {table.location}: {told(error)}") from error


def _check_protocol(table: Table, found: Snapshot) -> None:
    """Refuse a table that needs newer readers than we promise."""
    if found.reader_version > READER_VERSION:
        raise ConfigError(
            f"the table {table.location} needs Delta reader version {found.reader_version} (it has the features "
            f"{', '.join(found.features)}), which readers of our tables need not have: take out what raised it by "
            f"ALTER TABLE … DROP FEATURE, or give another place; for new tables unset what the session has under "
            f"{_DEFAULTS}"
        )


def _columns(table: Table, kind: TableKind, rows: DataFrame) -> set[str]:
    """The columns of a table that is of that kind."""
    there = {field.name: field.dataType.simpleString() for field in rows.schema}
    missing = [field.name for field in kind.schema if not field.nullable and field.name not in there]
    other = [
        f"{field.name} {there[field.name]} and not {field.dataType.simpleString()}"
        for field in kind.schema
        if there.get(field.name, field.dataType.simpleString()) != field.dataType.simpleString()
    ]
    if missing or other:
        wrong = [
            *([f"it lacks {', '.join(missing)}"] if missing else []),
            *([f"it has {', '.join(other)}"] if other else []),
        ]
        raise ConfigError(
            f"the table {table.location} is none of the engine's: {'; '.join(wrong)}; it has the columns "
            f"{', '.join(there)}. Nothing in it was changed: move it, or give another place"
        )
    return set(there)


def _add_check(table: Table, name: str, check: str) -> None:
    add = f"ALTER TABLE {table.sql_name} ADD CONSTRAINT {name} CHECK ({check})"
    try:
        despite_conflicts(lambda: table.spark.sql(add))
    except AnalysisException as error:
        if error.getCondition() != "DELTA_CONSTRAINT_ALREADY_EXISTS":  # another driver was first
            raise


def _create_empty(table: Table, kind: TableKind) -> None:
    properties = PINNED | kind.properties | {f"{_CHECK}{name}": check for name, check in kind.checks.items()}
    columns = ", ".join(
        f"{field.name} {field.dataType.simpleString()}{'' if field.nullable else ' NOT NULL'}" for field in kind.schema
    )
    by = f" CLUSTER BY ({kind.cluster_by})" if kind.cluster_by else ""
    at_once = all(ord(one) <= _LAST_OF_TWO_BYTES for one in table.sql_name)
    clause = by if at_once else ""
    pairs = ", ".join(f"{literal(name)} = {literal(value)}" for name, value in properties.items())
    clause += f" TBLPROPERTIES ({pairs})"
    table.spark.sql(f"CREATE TABLE IF NOT EXISTS {table.sql_name} ({columns}) USING delta{clause}")
    if by and not at_once:
        table.spark.sql(f"ALTER TABLE {table.sql_name}{by}")
