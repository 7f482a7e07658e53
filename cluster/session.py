"""Gives every job its SparkSession: the running one, spark-submit's, a Connect server's, or a new one with Delta."""

import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyspark.sql import SparkSession
from pyspark.sql.utils import is_remote

from cluster.connect import VARIABLE, connect, default_parallelism, is_connect, setting, shown
from cluster.delta import SESSION_CONF, jar_conf, require_delta
from cluster.errors import ClusterError
from cluster.java import check_java, class_options
from cluster.pack import NAME, PYTHON

if TYPE_CHECKING:
    from pyspark import SparkConf

_ATTEMPTS = 4
"""Tries of a task on one machine, as on a cluster, where Spark's default is this; in local mode it is 1."""
_WORKER_CONF = {"spark.executorEnv.PYTHONSAFEPATH": "1"}
"""Workers look for no module in the folder where a command was given: a package `jobs` or `udfs` there is not ours."""


@dataclass(frozen=True)
class ClusterConfig:
    """Where and how to run. A session that spark-submit or a notebook has started is used as it is."""

    master: str | None = None
    """Spark master URL; default: this machine with all its cores."""
    remote: str | None = None
    """Address of a Spark Connect server, sc://HOST:PORT, which then runs everything; default: $SPARK_REMOTE."""
    jars: str | None = None
    """Folder of Delta Lake's JARs, where no Maven repository is at hand; default: $MKDM_JARS, or Spark's resolver."""
    executor_cores: int | None = None
    """Cores of one executor; scoring gives them all to its one task. Default: all cores of the machine."""
    driver_memory: str = "4g"
    """Heap of the driver, which on one machine is the executor too."""
    executor_memory: str | None = None
    """Heap of each executor, where there is a cluster; default: Spark's."""
    environment: str | None = None
    """Archive of mkdm pack for the executors of a cluster, which then need none of our packages."""


def start_session(
    config: ClusterConfig, app_name: str, extra_conf: dict[str, str] | None = None, whole_executor: bool = True
) -> SparkSession:
    """The session for a job.

    Args:
        whole_executor: whether a task gets all cores of its executor, as a model needs them; else it gets one.
        extra_conf: settings of a session that is started here, over our own.

    Raises:
        ClusterError: Java is missing or unfit, Delta's JARs cannot be had, a given session lacks Delta Lake, no Connect
            server answers, or an environment is named that is not there or that no executor would unpack.
    """
    if _is_remote(config):
        return connect(config.remote, app_name)
    running = SparkSession.getActiveSession()
    if running is not None:
        require_delta(running)
        return running
    from pyspark import SparkConf, SparkContext

    from cluster.classic import keep_classes
    from cluster.launch import launch_jvm

    if "PYSPARK_GATEWAY_PORT" in os.environ:  # spark-submit has started the JVM
        SparkContext._ensure_initialized()  # or else SparkConf does not know what spark-submit was given
        builder = SparkSession.builder.appName(app_name)
        task_conf = _one_task_conf(SparkConf()) if whole_executor else {}
        for key, value in {**SESSION_CONF, **_WORKER_CONF, **task_conf}.items():
            builder = builder.config(key, value)
        spark = builder.getOrCreate()
        require_delta(spark)
        return spark
    check_java()
    _check_environment(config)
    # workers would take python3 from PATH
    os.environ.setdefault("PYSPARK_PYTHON", PYTHON if config.environment else sys.executable)
    conf = SparkConf().setAppName(app_name)
    for key, value in {**_own_conf(config, whole_executor), **jar_conf(config.jars), **(extra_conf or {})}.items():
        conf.set(key, value)
    started = SparkContext._gateway is not None  # by a session that was stopped; its JVM has the JARs
    spark = SparkSession(SparkContext.getOrCreate(conf) if started else launch_jvm(conf))
    keep_classes(spark)
    return spark


def _is_remote(config: ClusterConfig) -> bool:
    """Whether the session is a Connect server's; one that is there already goes before the variable."""
    if config.remote is None and SparkSession.getActiveSession() is not None:
        return False
    remote = config.remote or os.environ.get(VARIABLE)
    flag = "--master" if config.master else "--environment" if config.environment else None
    if remote and flag:
        raise ClusterError(f"{flag} is for a Spark that is started here, and {shown(remote)} is one: give one of them")
    return bool(remote) or is_remote()


class StepSessions:
    """One session after the other for the steps of a command, each with tasks of the size that its step needs.

    A session that is there already, as in a notebook, stays as it is. So does that of a driver on the cluster
    (`--deploy-mode cluster`), since YARN lets an application have one SparkContext, and Kubernetes would give the
    executors of a second the names of the first's: all its steps have whole executors, as a model needs them.

    Attributes:
        fixed: whether all steps have the same session; known once there is one.
    """

    def __init__(self, config: ClusterConfig, app_name: str) -> None:
        self._config, self._app_name = config, app_name
        self._spark = SparkSession.getActiveSession()
        self._whole: bool | None = None
        self.fixed = self._spark is not None

    def start(self, step: str, whole_executor: bool) -> SparkSession:
        """The session for a step; one for tasks of another size is stopped before.

        Raises:
            ClusterError: as `start_session`.
        """
        if self._spark is None and _is_remote(self._config):
            self.fixed = True
        elif "PYSPARK_GATEWAY_PORT" in os.environ and self._spark is None:
            from pyspark import SparkConf, SparkContext

            SparkContext._ensure_initialized()
            self.fixed = _driver_on_cluster(SparkConf())
        if self._spark is None or not (self.fixed or self._whole == whole_executor or self._one_size()):
            if self._spark is not None:
                self._spark.stop()
            name = self._app_name if self.fixed else f"{self._app_name}: {step}"
            self._whole = whole_executor or self.fixed
            self._spark = start_session(self._config, name, whole_executor=self._whole)
        return self._spark

    def _one_size(self) -> bool:
        """Whether a whole executor is one core, or spark-submit was told how many cores a task gets."""
        from pyspark import SparkConf

        submitted = "PYSPARK_GATEWAY_PORT" in os.environ
        conf = _one_task_conf(SparkConf()) if submitted else _own_conf(self._config, whole_executor=True)
        return conf.get("spark.task.cpus", "1") == "1"


def _driver_on_cluster(submitted: "SparkConf") -> bool:
    on_kubernetes = submitted.get("spark.kubernetes.submitInDriver", "false")
    return submitted.get("spark.submit.deployMode") == "cluster" or on_kubernetes == "true"


def _check_environment(config: ClusterConfig) -> None:
    if config.environment is None:
        return
    if config.master is None or config.master.startswith("local"):
        raise ClusterError("--environment is for the executors of a cluster: pass --master too, or leave it out")
    if "://" not in config.environment and not os.path.isfile(config.environment):
        raise ClusterError(f"--environment is {config.environment}, where there is no file: make it with mkdm pack")


def _own_conf(config: ClusterConfig, whole_executor: bool) -> dict[str, str]:
    cores = config.executor_cores or os.cpu_count() or 1
    conf = {
        **SESSION_CONF,
        **_WORKER_CONF,
        "spark.master": config.master or f"local[{cores},{_ATTEMPTS}]",
        "spark.driver.memory": config.driver_memory,
        "spark.ui.showConsoleProgress": "false",  # jobs show their own
        "spark.executor.heartbeatInterval": "2s",  # carries their progress
        "spark.io.compression.codec": "zstd",  # rows of pairs are much alike: 14 bytes shuffled a pair, 33 with lz4
        "spark.task.cpus": str(cores if whole_executor else 1),
        "spark.sql.execution.arrow.maxRecordsPerBatch": "4096",  # a window of the scorer, whatever the texts' size
    }
    if config.master is not None and not config.master.startswith("local"):
        conf["spark.executor.cores"] = str(cores)
        if config.executor_memory:
            conf["spark.executor.memory"] = config.executor_memory
        if config.environment:
            conf["spark.archives"] = f"{config.environment}#{NAME}"
    else:  # one machine: the model needs the cores, so the JVM compiles lightly and Delta reads its log in one task
        conf["spark.databricks.delta.snapshotPartitions"] = "1"
        conf["spark.sql.shuffle.partitions"] = str(cores)
        conf["spark.python.daemon.module"] = "udfs.python_daemon"
        conf["spark.sql.sources.parallelPartitionDiscovery.parallelism"] = str(cores)  # VACUUM would start 10,000 tasks
        # With one tier alone the JVM keeps 48 MB for code, which Spark and Delta outgrow within a minute: it then drops
        # code that it soon compiles again. 240 MB is what it keeps for all tiers.
        compiling = "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=240m"
        conf["spark.driver.extraJavaOptions"] = f"{compiling} {class_options()}".strip()
    return conf


def _one_task_conf(submitted: "SparkConf") -> dict[str, str]:
    """spark.task.cpus = executor cores, where spark-submit was told the latter and not the former."""
    cores = submitted.get("spark.executor.cores")
    if submitted.get("spark.master", "").startswith("local["):  # type: ignore[union-attr]
        cores = submitted.get("spark.master", "")[len("local[") : -1].split(",")[0]  # type: ignore[index]
        cores = str(os.cpu_count() or 1) if cores == "*" else cores
    return {"spark.task.cpus": cores} if cores and not submitted.contains("spark.task.cpus") else {}


def task_slots(spark: SparkSession) -> int:
    """How many tasks the session runs at once, as far as it tells."""
    _, slots = _master_and_slots(spark)
    return max(1, slots // int(_setting(spark, "spark.task.cpus") or 1))


def gives_whole_executors(spark: SparkSession) -> bool | None:
    """Whether a task gets all cores of its executor; None where the session does not say, or an executor has one."""
    master, slots = _master_and_slots(spark)
    if not master:
        return None
    cores = int(slots if master.startswith("local") else _setting(spark, "spark.executor.cores") or 1)
    return None if cores == 1 else int(_setting(spark, "spark.task.cpus") or 1) >= cores


def master_of(spark: SparkSession) -> str:
    """The master's URL; empty where the session does not tell it."""
    return _master_and_slots(spark)[0]


def _master_and_slots(spark: SparkSession) -> tuple[str, int]:
    """The master's URL, empty where the session does not tell it, and how many tasks of one core run at once."""
    if is_connect(spark):
        return setting(spark, "spark.master") or "", default_parallelism(spark)
    from cluster.classic import master_and_slots

    return master_and_slots(spark)


def _setting(spark: SparkSession, name: str) -> str | None:
    if is_connect(spark):
        return setting(spark, name)
    from cluster import classic

    return classic.setting(spark, name)
