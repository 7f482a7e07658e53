"""What tests do to Delta tables that the engine never does, as SQL, which every session has."""

from jobs.engine import Table, with_settings
from jobs.engine.place import literal


def update(table: Table, condition: str, **columns: str | int | None) -> None:
    """Give the columns of rows these values."""
    values = {
        name: "NULL" if value is None else literal(value) if isinstance(value, str) else f"{value:d}"
        for name, value in columns.items()
    }
    assigned = ", ".join(f"{name} = {value}" for name, value in values.items())
    table.spark.sql(f"UPDATE {table.sql_name} SET {assigned} WHERE {condition}")


def optimise(table: Table, order_by: str | None = None) -> None:
    """Write its files anew, with the same rows."""
    table.spark.sql(f"OPTIMIZE {table.sql_name}" + (f" ZORDER BY ({order_by})" if order_by else ""))


def vacuum_all(table: Table) -> None:
    """Remove all files that the newest version does not need."""
    with with_settings(table.spark, {"spark.databricks.delta.retentionDurationCheck.enabled": "false"}):
        table.spark.sql(f"VACUUM {table.sql_name} RETAIN 0 HOURS")
