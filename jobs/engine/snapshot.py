"""What the log of a Delta table tells: looked at once, by the read itself, without a Spark job."""

from dataclasses import dataclass

from pyspark.sql import DataFrame

from cluster.connect import is_connect


@dataclass(frozen=True)
class Snapshot:
    """A Delta table at one version.

    Attributes:
        table_id: the id that it keeps for life, whatever its place or name.
        properties: Delta's table properties.
        reader_version: of Delta's protocol, the one that its readers need.
        features: the table features that it names.
    """

    version: int
    table_id: str
    properties: dict[str, str]
    reader_version: int
    features: tuple[str, ...]


def snapshot_of(rows: DataFrame) -> Snapshot | None:
    """What a read of a whole Delta table has found in its log.

    Returns:
        None where that cannot be seen: over Spark Connect, of a view, and where Delta is another than the open one.
    """
    if is_connect(rows):
        return None
    from cluster.classic import snapshot_facts

    found = snapshot_facts(rows)
    return None if found is None else Snapshot(**found)
