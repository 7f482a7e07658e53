"""Builds the pairs of real queries and documents, with texts in them and without: funnel, time, memory, bytes.

    python tests/scale/funnel.py --data DIR --tokenizer DIR --work DIR [--queries 26000] [--passage-in-pairs false true]
        [--prefilter none bm25 overlap --passages-per-query 20] [--build-only]

Bytes shuffled, written and spilled are those of Spark's own event log. `lay out` is what a scoring run of 50 chunks
does first: it copies the pairs with their texts, by chunk. The limits hold for every prefilter, none too. Of several
prefilters the first build cuts the documents, the others keep its passages and make their pairs anew.
"""

import argparse
import json
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, Thread

import psutil
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from cluster.session import ClusterConfig, start_session
from jobs.build_pairs import JOB, STEPS, run
from jobs.engine import Table, Warehouse, newest_build
from jobs.engine.chunks import lay_out
from jobs.engine.ledger import Ledger, Run
from jobs.engine.pairs import read_pairs
from jobs.funnel.config import BuildPairsConfig

INPUTS = ("queries", "documents", "query_documents")


class Memory:
    """The most memory that this process and all that it started held at once, in bytes; and its JVM's.

    And the seconds of a core that they took, which tell more than the clock where others work beside them.
    """

    def __enter__(self) -> "Memory":
        self.all = self.jvm = 0
        self._done = Event()
        self._cpu: dict[int, float] = {}
        self._look()
        self._before = dict(self._cpu)
        self._thread = Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._done.wait(0.5):
            self._look()

    def _look(self) -> None:
        me, sizes = psutil.Process(), {}
        for process in [me, *me.children(recursive=True)]:
            try:
                sizes[process.pid] = (process.name(), process.memory_info().rss)
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            self._cpu[process.pid] = times.user + times.system
        self.all = max(self.all, sum(size for _, size in sizes.values()))
        self.jvm = max(self.jvm, sum(size for name, size in sizes.values() if name == "java"))

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self._look()
        self.cpu = sum(seconds - self._before.get(pid, 0.0) for pid, seconds in self._cpu.items())


def moved(log: Path, since: int) -> tuple[dict[str, int], int]:
    """Bytes that the tasks after line `since` of the event log moved; and its lines."""
    sums = dict.fromkeys(("shuffled", "written", "spilled"), 0)
    lines = log.read_text().splitlines()
    for line in lines[since:]:
        event = json.loads(line)
        metrics = event.get("Task Metrics")
        if event["Event"] == "SparkListenerTaskEnd" and metrics:
            sums["shuffled"] += metrics["Shuffle Write Metrics"]["Shuffle Bytes Written"]
            sums["written"] += metrics["Output Metrics"]["Bytes Written"]
            sums["spilled"] += metrics["Disk Bytes Spilled"]
    return sums, len(lines)


def stored(table: Table) -> int:
    """Bytes of the files of a table's newest version."""
    return int(table.detail("sizeInBytes")["sizeInBytes"])


def measure(spark: SparkSession, arguments: argparse.Namespace, log: Path, with_passage: bool) -> None:
    """A build of each prefilter."""
    warehouse = Warehouse(spark, str(Path(arguments.work) / f"warehouse_{with_passage}"))
    shutil.rmtree(warehouse.root, ignore_errors=True)
    for name in INPUTS:
        rows = spark.read.parquet(str(Path(arguments.data) / f"{name}.parquet"))
        if name == "queries" and arguments.queries:
            rows = rows.orderBy(F.xxhash64("query_id")).limit(arguments.queries)
        warehouse.table(name).overwrite(rows)
    for number, prefilter in enumerate(arguments.prefilter):
        if number:
            spark.sql(f"DELETE FROM {warehouse.table('pairs').sql_name}")
        measure_one(warehouse, arguments, log, prefilter, with_passage)


def measure_one(
    warehouse: Warehouse, arguments: argparse.Namespace, log: Path, prefilter: str, with_passage: bool
) -> None:
    """One build and one layout."""
    spark = warehouse.spark
    _, line = moved(log, 0)
    config = BuildPairsConfig(
        arguments.tokenizer,
        warehouse.root,
        passage_tokens=arguments.passage_tokens,
        passage_in_pairs=with_passage,
        prefilter=prefilter,
        passages_per_document=arguments.passages_per_document,
        passages_per_query=arguments.passages_per_query,
        max_reject_rate=1.0,
    )
    with Memory() as memory:
        report = run(spark, config)
    print(f"\nprefilter: {prefilter}; passage in pairs: {with_passage}\n{report}")
    build = newest_build(Ledger(warehouse.table("runs")), JOB)
    steps = build.chunks if build else {}
    print(f"steps: {', '.join(f'{name} {steps[n].seconds:,.1f} s' for n, (name, _) in enumerate(STEPS))}")
    time.sleep(2)  # the log is written behind
    sums, line = moved(log, line)
    pairs = warehouse.table("pairs")
    rows = report.counts["pairs"]["pairs"]
    print(f"memory: {memory.all / 1e6:,.0f} MB in all, JVM {memory.jvm / 1e6:,.0f} MB; {memory.cpu:,.0f} s of a core")
    print(f"build: {', '.join(f'{what} {size / 1e6:,.0f} MB' for what, size in sums.items())}")
    print(f"stored: pairs {stored(pairs) / 1e6:,.0f} MB, {stored(pairs) / rows:.1f} bytes a pair")
    print(f"        passages {stored(warehouse.table('passages')) / 1e6:,.0f} MB")
    if arguments.build_only:
        return
    began = time.monotonic()
    layout = Run("layout", "score", "f" * 32, {}, {}, "0", rows, 50, datetime.now(UTC))
    table, found = warehouse.table("laid_out"), read_pairs(spark, pairs, None)
    with Memory() as memory:
        lay_out(found.without_texts, layout, table, passages=found.texts(), by_document=found.built)
    seconds = time.monotonic() - began
    time.sleep(2)
    laid, _ = moved(log, line)
    print(f"lay out: {seconds:,.0f} s, {', '.join(f'{what} {size / 1e6:,.0f} MB' for what, size in laid.items())}")
    print(f"         stored {stored(table) / 1e6:,.0f} MB; memory {memory.all / 1e6:,.0f} MB", flush=True)
    table.drop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--work", required=True)
    parser.add_argument("--queries", type=int)
    parser.add_argument("--passage-tokens", type=int, default=128)
    parser.add_argument("--passage-in-pairs", nargs="+", default=["false", "true"])
    parser.add_argument("--prefilter", nargs="+", default=["none"], choices=["none", "bm25", "overlap"])
    parser.add_argument("--passages-per-document", type=int)
    parser.add_argument("--passages-per-query", type=int)
    parser.add_argument("--build-only", action="store_true", help="no layout")
    arguments = parser.parse_args()
    events = Path(arguments.work) / "events"
    shutil.rmtree(events, ignore_errors=True)
    events.mkdir(parents=True)
    conf = {
        "spark.ui.enabled": "false",
        "spark.eventLog.enabled": "true",
        "spark.eventLog.dir": events.as_uri(),
        "spark.eventLog.compress": "false",
        "spark.eventLog.rolling.enabled": "false",
    }
    spark = start_session(ClusterConfig(), "funnel", conf, whole_executor=False)
    log = next(events.iterdir())
    for choice in arguments.passage_in_pairs:
        measure(spark, arguments, log, choice == "true")
    spark.stop()


if __name__ == "__main__":
    main()
