"""What the log of a Delta table tells: looked at once, by the read itself, without a Spark job."""

from dataclasses import dataclass
from typing import Any

from pyspark.sql import DataFrame

_ALIAS = "SubqueryAlias"


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
    try:
        plan: Any = rows._jdf.queryExecution().analyzed()
        while plan.nodeName() == _ALIAS:
            plan = plan.children().head()
        found = plan.relation().location().getSnapshot()
        convert = rows.sparkSession._jvm.scala.jdk.javaapi.CollectionConverters  # type: ignore[union-attr]
        configuration = dict(convert.asJava(found.metadata().configuration()))
        features = {str(name) for name in convert.asJava(found.protocol().readerAndWriterFeatureNames())}
        return Snapshot(
            version=int(found.version()),
            table_id=str(found.metadata().id()),
            properties=configuration,
            reader_version=int(found.protocol().minReaderVersion()),
            features=tuple(sorted(features)),
        )
    except Exception:  # whatever another Delta lacks, the slower way is there
        return None
