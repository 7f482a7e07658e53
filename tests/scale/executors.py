"""Throughput of one executor and of two, of one core each, of a cluster on loopback: `python tests/scale/executors.py`.

Each scores the shipped sample, `--copies` times over, in tasks of 512 pairs, with the shipped student or `--model`; the
job's own figures are printed.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from loopback import LoopbackCluster  # noqa: E402

SAMPLE = ROOT / "tests" / "sample"


def write_pairs(path: Path, copies: int) -> None:
    """The sample's pairs, each copy under keys and with queries of its own."""
    pairs = pq.read_table(SAMPLE / "pairs.parquet").to_pylist()
    again = [
        {**pair, "query_id": f"{copy}:{pair['query_id']}", "query": f"{copy} {pair['query']}"}
        for copy in range(copies)
        for pair in pairs
    ]
    pq.write_table(pa.Table.from_pylist(again), path)


def score(workers: int, folder: Path, model: str, precision: str) -> tuple[float, int]:
    """Pairs/s of `mkdm score` on a cluster of that many workers, and how many models it loaded."""
    with LoopbackCluster(folder / f"cluster-{workers}", workers) as cluster:
        command = [
            sys.executable,
            "-m",
            "jobs",
            "score",
            "--master",
            cluster.master,
            "--model",
            model,
        ]
        command += ["--pairs", f"{folder}/pairs.parquet", "--warehouse", str(folder / f"warehouse-{workers}")]
        command += ["--executor-cores", "1", "--executor-memory", "1g", "--driver-memory", "1g"]
        command += ["--rows-per-task", "512", "--precision", precision]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    figures = dict(re.findall(r"^(pairs/s|model loads|seconds) +([\d.,]+)$", done.stdout, re.MULTILINE))
    print(f"{workers} executor(s) of 1 core: {figures}", flush=True)
    return float(figures["pairs/s"].replace(",", "")), int(figures["model loads"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default=f"{SAMPLE}/student")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--copies", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_pairs(Path(folder, "pairs.parquet"), arguments.copies)
        one, two = (
            score(workers, Path(folder), str(Path(arguments.model).resolve()), arguments.precision)
            for workers in (1, 2)
        )
    print(f"two executors score {two[0] / one[0]:.2f} times as many pairs/s as one")
