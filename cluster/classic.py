"""All that reaches into the JVM of a classic session, through py4j. A session of Spark Connect has none, and no need.

No other module of the engine uses `_jvm`, `_jsparkSession`, `sparkContext` or py4j; `tests/test_imports.py` sees to it.
"""

import json
from collections.abc import Callable, Iterator
from itertools import takewhile
from re import sub
from typing import Any

from py4j.protocol import Py4JError, Py4JJavaError
from pyspark.sql import DataFrame, SparkSession

from cluster.storage import URI, Entry

JAVA_ERRORS: tuple[type[Exception], ...] = (Py4JError,)
"""What reaches Python from the JVM besides the exceptions of PySpark."""
_ALIAS = "SubqueryAlias"
_ASKED_FOR = (
    "org.apache.spark.sql.catalyst.trees.PySparkCurrentOrigin",
    "org.apache.spark.sql.classic.SparkSession",
    "org.apache.spark.sql.functions",
    "org.apache.spark.util.Utils",
    "functions",
    "PythonSQLUtils",
    "PythonUtils",
    "io",
    "org",
    "py4j",
)
_accumulators: dict[str, dict[str, Any]] = {}
"""By Spark application, its accumulators: a metrics source can be registered once."""


def keep_classes(spark: SparkSession) -> None:
    """Keep at hand the classes that PySpark asks the JVM for at each column and each action.

    The JVM looks for them in all JARs each time, under several names: a tenth of what the driver of a small run does.
    """
    for name in _ASKED_FOR:
        setattr(spark._jvm, name, getattr(spark._jvm, name))


def java_exception(error: BaseException) -> Any:
    """The exception of the JVM beneath one of Python; None where there is none."""
    return error.java_exception if isinstance(error, Py4JJavaError) else getattr(error, "_origin", None)


def has_class(spark: SparkSession, name: str) -> bool:
    """Whether a class is on the class path of the driver."""
    jvm: Any = spark._jvm
    try:
        jvm.java.lang.Class.forName(name, False, jvm.Thread.currentThread().getContextClassLoader())
    except Py4JError:
        return False
    return True


def master_and_slots(spark: SparkSession) -> tuple[str, int]:
    """The master's URL, and how many tasks of one core run at once."""
    return str(spark.sparkContext.master), int(spark.sparkContext.defaultParallelism)


def setting(spark: SparkSession, name: str) -> str | None:
    """A setting of the application."""
    return spark.sparkContext.getConf().get(name)


def is_delta_table(spark: SparkSession, location: str) -> bool:
    """Whether a Delta table is in a folder: by a look at its files, without a job."""
    from delta.tables import DeltaTable

    return bool(DeltaTable.isDeltaTable(spark, location))


def require_named_delta_table(spark: SparkSession, sql_name: str) -> None:
    """Have Delta Lake refuse a name of the catalog that is a view, or a table of another format."""
    from delta.tables import DeltaTable

    DeltaTable.forName(spark, sql_name)


class HadoopStorage:
    """Storage as Hadoop's FileSystem gives it; see `cluster.storage.Storage`."""

    def __init__(self, spark: SparkSession) -> None:
        self._spark = spark
        self._jvm: Any = spark._jvm
        self._systems: dict[str, Any] = {}

    def qualified(self, location: str) -> str:
        system, path = self._at(location)
        return str(system.makeQualified(path).toString())

    def exists(self, location: str) -> bool:
        system, path = self._at(location)
        return bool(system.exists(path))

    def entry(self, location: str) -> Entry:
        system, path = self._at(location)
        return _entry(system.getFileStatus(path))

    def children(self, location: str) -> list[Entry]:
        system, path = self._at(location)
        return [_entry(status) for status in system.listStatus(path)]

    def matches(self, pattern: str) -> list[Entry]:
        system, path = self._at(pattern)
        return [_entry(status) for status in system.globStatus(path) or ()]

    def sha256(self, path: str) -> str:
        system, at = self._at(path)
        stream = system.open(at)
        try:
            return str(self._jvm.org.apache.commons.codec.digest.DigestUtils.sha256Hex(stream))
        finally:
            stream.close()

    def read_text(self, location: str) -> str:
        system, path = self._at(location)
        stream = system.open(path)
        try:
            return str(self._jvm.org.apache.commons.io.IOUtils.toString(stream, "UTF-8"))
        finally:
            stream.close()

    def write_text(self, location: str, text: str) -> None:
        system, path = self._at(location)
        system.setWriteChecksum(False)  # of a local folder: its hidden file would outlive an edit of the text
        try:
            stream = system.create(path, True)
            stream.write(text.encode())
            stream.close()
        finally:
            system.setWriteChecksum(True)

    def rename(self, location: str, to: str) -> bool:
        system, path = self._at(location)
        return bool(system.rename(path, self._at(to)[1]))

    def delete(self, location: str) -> None:
        system, path = self._at(location)
        system.delete(path, True)

    def _at(self, location: str) -> tuple[Any, Any]:
        """The file system of a location, and the location as Hadoop's Path."""
        text = location if URI.match(location) else sub(r"^(?!/)(?=[^/]*:)", "./", location)  # or "a:b" has a scheme a
        path = self._jvm.org.apache.hadoop.fs.Path(text)
        authority = "/".join(text.split("/", 3)[:3]) if "://" in text else text.partition("/")[0]
        if authority not in self._systems:
            conf = self._spark._jsparkSession.sessionState().newHadoopConf()
            self._systems[authority] = path.getFileSystem(conf)
        return self._systems[authority], path


def _entry(status: Any) -> Entry:
    return Entry(str(status.getPath().toString()), bool(status.isDirectory()), int(status.getLen()))


def snapshot_facts(rows: DataFrame) -> dict[str, Any] | None:
    """What a read of a whole Delta table has found in its log, without a Spark job.

    Returns:
        version, table_id, properties, reader_version and features; None where it cannot be seen: of a view, and where
        Delta is another than the open one.
    """
    try:
        plan: Any = rows._jdf.queryExecution().analyzed()
        while plan.nodeName() == _ALIAS:
            plan = plan.children().head()
        found = plan.relation().location().getSnapshot()
        # as texts: the end of an iterator of Java's is an exception, whose way to Python takes 40 ms
        metadata = json.loads(found.metadata().json())["metaData"]
        features = str(found.protocol().readerAndWriterFeatureNames().mkString("\n"))
        return {
            "version": int(found.version()),
            "table_id": str(metadata["id"]),
            "properties": metadata["configuration"],
            "reader_version": int(found.protocol().minReaderVersion()),
            "features": tuple(sorted(features.split("\n"))) if features else (),
        }
    except Exception:  # whatever another Delta lacks, the slower way is there
        return None


def row_counter(spark: SparkSession) -> Callable[[], int]:
    """A function that returns how many rows came of Python UDFs since now, from Spark's SQL status store."""
    try:
        store = spark._jsparkSession.sharedState().statusStore()
        last = _newest(store)
    except Exception:  # a store that this Spark keeps elsewhere
        return lambda: 0

    def rows() -> int:
        try:
            executions = store.executionsList()
            newer = range(executions.size() - 1, -1, -1)
            running = takewhile(lambda one: one.executionId() > last, map(executions.apply, newer))
            return max((_python_rows(store, execution) for execution in running), default=0)
        except Exception:  # a plan that changes while it is read; the next poll reads it again
            return 0

    return rows


def _newest(store: Any) -> int:
    """The id of the last SQL execution; the store forgets old ones, so that their count would not do."""
    executions = store.executionsList()
    return int(executions.apply(executions.size() - 1).executionId()) if executions.size() else -1


def _python_rows(store: Any, execution: Any) -> int:
    """Rows that Python UDFs returned; of blocks, the rows that were made of them."""
    values = store.executionMetrics(execution.executionId())
    nodes = store.planGraph(execution.executionId()).allNodes()
    rows: dict[bool, int] = {}
    below = False
    for node in sorted(map(nodes.apply, range(nodes.size())), key=lambda one: one.id()):  # each before its input
        from_python = "EvalPython" in node.name() or "InPandas" in node.name()
        below = below or from_python
        if from_python or (node.name() == "Generate" and not below):
            rows[from_python] = rows.get(from_python, 0) + sum(_output_rows(node, values))
    return rows.get(False, rows[True]) if True in rows else 0


def _output_rows(node: Any, values: Any) -> Iterator[int]:
    metrics = node.metrics()
    for metric in map(metrics.apply, range(metrics.size())):
        if metric.name() == "number of output rows":
            value = values.get(metric.accumulatorId())
            if value.isDefined():
                yield int(value.get().replace(",", ""))


def local_property(spark: SparkSession, name: str) -> str | None:
    """A property of the Spark jobs that this thread starts."""
    return spark.sparkContext.getLocalProperty(name)


def set_local_property(spark: SparkSession, name: str, value: str | None) -> None:
    """Set such a property; None takes it away."""
    spark.sparkContext.setLocalProperty(name, value)  # type: ignore[arg-type]


def accumulators(spark: SparkSession, names: list[str]) -> dict[str, Any]:
    """Spark's own accumulators of these names, which its UI and metrics system show; made once for an application."""
    application = spark.sparkContext.applicationId
    if application not in _accumulators:
        jvm: Any = spark._jvm
        context = spark._jsc.sc()
        made = {name: context.longAccumulator(name) for name in names}
        source = getattr(jvm.org.apache.spark.metrics.source, "LongAccumulatorSource$")
        getattr(source, "MODULE$").register(context, jvm.PythonUtils.toScalaMap(made))
        _accumulators[application] = made
    return _accumulators[application]
