"""Where the time of a short run goes: `python tests/scale/start.py [--chunks 1 3] [--rounds 3] [--tree DIR …]`.

A new process scores ten pairs of the sample into a fresh warehouse. Its main thread is looked at every few
milliseconds, and the time is told by our own functions, as a tree: what is beneath a function is part of it. Several
trees, such as the checkout of an older version, take turns.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parent.parent.parent
SAMPLE = ROOT / "tests" / "sample"
OURS = ("cluster", "jobs", "mkdm", "udfs")
EVERY = 0.004
"""Seconds between two looks."""

Stack = tuple[str, ...]


class Sampler:
    """Counts what the main thread is doing, by stacks of our own functions."""

    def __init__(self, tree: Path) -> None:
        self._folders = tuple(f"{tree / name}{os.sep}" for name in OURS)
        self._main = threading.main_thread().ident
        self._counts: Counter[Stack] = Counter()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            time.sleep(EVERY)
            frame = sys._current_frames().get(self._main)  # type: ignore[arg-type]
            stack: list[str] = []
            while frame is not None:
                code = frame.f_code
                if code.co_filename.startswith(self._folders) and code.co_name != "<module>":
                    stack.append(f"{Path(code.co_filename).stem}.{code.co_name}")
                frame = frame.f_back
            self._counts[tuple(reversed(stack))] += 1

    def seconds(self, since_start: float) -> list[tuple[Stack, float]]:
        """By stack, its seconds, with those of all that it called. Looks may be late: they share the time."""
        each = since_start / max(1, self._counts.total())
        whole: Counter[Stack] = Counter()
        for stack, looks in self._counts.items():
            for depth in range(len(stack) + 1):
                whole[stack[:depth]] += looks
        return [(stack, looks * each) for stack, looks in whole.items()]


def child(tree: Path, pairs: str, warehouse: str, chunks: int) -> None:
    """Run `mkdm score` in this process, and print its profile as the last line."""
    began = time.monotonic()
    sampler = Sampler(tree)
    from jobs import score
    from jobs.engine.table import Table

    commits, drop = Counter[str](), Table.drop

    def counted_drop(table: Table) -> None:  # staging is gone at the end
        commits["staging"] += len(list(Path(table.location, "_delta_log").glob("*.json")))
        drop(table)

    Table.drop = counted_drop  # type: ignore[method-assign]
    model = str(SAMPLE / "student")
    score.main(["--model", model, "--pairs", pairs, "--warehouse", warehouse, "--chunks", str(chunks)])
    seconds = time.monotonic() - began
    profile = sampler.seconds(seconds)
    from pyspark.sql import SparkSession

    spark: Any = SparkSession.getActiveSession()
    for table in sorted(Path(warehouse).iterdir()):
        commits[table.name] += len(list((table / "_delta_log").glob("*.json")))
    counts = {
        "CPU seconds": round(sum(map(cpu_seconds, [psutil.Process(), *psutil.Process().children(recursive=True)]))),
        "jobs": spark._jsc.sc().statusStore().jobsList(None).size(),
        "queries": spark._jsparkSession.sharedState().statusStore().executionsCount(),
        "commits": commits.total(),
    }
    print(json.dumps({"table": time.time(), "counts": counts, "commits": commits, "profile": profile}))


def cpu_seconds(process: psutil.Process) -> float:
    """What a process has used; a busy machine makes a run longer, and this less so."""
    times = process.cpu_times()
    return float(times.user + times.system)


def one_run(tree: Path, pairs: Path, chunks: int) -> dict[str, Any]:
    """Ten pairs from a cold start: seconds until the table is printed and until the end, and the child's profile."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--child", str(tree), str(pairs), f"{folder}/w", str(chunks)]
        env = os.environ | {"PYTHONPATH": str(tree)}
        began = time.time()
        done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=folder, check=False)
        seconds = time.time() - began
        if done.returncode:
            raise SystemExit(done.stderr)
        told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return told | {"table": told["table"] - began, "end": seconds}


def tree_of(runs: list[dict[str, Any]], least: float) -> list[str]:
    """The median of the seconds of each function, indented below its caller, in the order of their names."""
    found: dict[Stack, list[float]] = {}
    for one in runs:
        for stack, seconds in one["profile"]:
            found.setdefault(tuple(stack), []).append(seconds)
    medians = {stack: median([*each, *[0.0] * (len(runs) - len(each))]) for stack, each in found.items()}
    return [
        f"{seconds:7.2f} s {'  ' * len(stack)}{stack[-1] if stack else 'all'}"
        for stack, seconds in sorted(medians.items())
        if seconds >= least
    ]


def main() -> None:
    """Run each tree in turns, and print for each its seconds, its Spark jobs and commits, and its profile."""
    if sys.argv[1:2] == ["--child"]:
        child(Path(sys.argv[2]), sys.argv[3], sys.argv[4], int(sys.argv[5]))
        return
    parser = argparse.ArgumentParser()
    parser.add_argument("--tree", type=Path, nargs="+", default=[ROOT], help="checkouts to run, in turns")
    parser.add_argument("--chunks", type=int, nargs="+", default=[1, 3])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--least", type=float, default=0.1, help="seconds of a function that is told")
    parser.add_argument("--no-profile", action="store_true", help="tell no functions")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        pairs = Path(folder, "pairs.parquet")
        ten_pairs(pairs)
        runs: dict[tuple[Path, int], list[dict[str, Any]]] = {}
        for _ in range(arguments.rounds):
            for chunks in arguments.chunks:
                for tree in arguments.tree:
                    one = one_run(tree.resolve(), pairs, chunks)
                    runs.setdefault((tree, chunks), []).append(one)
                    print(f"{tree.resolve().name}, {chunks} chunks: {one['table']:.1f} s", flush=True)
    for (tree, chunks), each in runs.items():
        table, end = (median(one[name] for one in each) for name in ("table", "end"))
        counts = ", ".join(f"{number} {name}" for name, number in each[-1]["counts"].items())
        print(f"\n{tree}, {chunks} chunks: {table:.1f} s to the table, {end:.1f} s to the end; {counts}")
        print(f"  commits: {', '.join(f'{name} {number}' for name, number in each[-1]['commits'].items())}")
        if not arguments.no_profile:
            print(*tree_of(each, arguments.least), sep="\n")


def ten_pairs(path: Path) -> None:
    """Ten pairs of different queries, so that several chunks get some."""
    import pyarrow.parquet as pq

    pairs = pq.read_table(SAMPLE / "pairs.parquet")
    pq.write_table(pairs.take([row * pairs.num_rows // 10 for row in range(10)]), path)


if __name__ == "__main__":
    main()
