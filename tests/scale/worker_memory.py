"""Memory of Python workers that score side by side on one host, by backend and precision: as on serverless compute.

Each worker is a process that loads the sample's student and scores the pairs that it is given, with one thread. What is
shared between them, such as the files that OpenVINO maps, counts once in PSS and in each of them in RSS.

    python tests/scale/worker_memory.py --workers 2 --pairs 300
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd
import psutil

SAMPLE = Path(__file__).parent.parent / "sample"
SIDES = (("openvino", "int8"), ("openvino", "fp32"), ("torch", "fp32"))
_WORKER = """
import sys
if sys.argv[2] == "openvino":
    sys.modules["torch"] = None  # as it is not in the environment there; transformers imports it wherever it is
import pandas as pd
from mkdm.scoring import load_scorer
model, backend, precision, pairs, file = sys.argv[1:]
rows = pd.read_parquet(file).head(int(pairs))
scorer = load_scorer(model, backend, precision, threads=1)
for start in range(0, len(rows), 100):
    scorer.score(rows["query"][start:start + 100].tolist(), rows["passage"][start:start + 100].tolist())
print("torch" if sys.modules.get("torch") else "none", flush=True)
sys.stdin.readline()
"""


def exported(folder: Path, pairs: int) -> Path:
    """A copy of the sample's student with its OpenVINO files."""
    from mkdm.export import ExportSettings, ValidationPairs, export_model

    model = Path(shutil.copytree(SAMPLE / "student", folder / "student"))
    rows = pd.read_parquet(SAMPLE / "pairs.parquet")
    golden = pd.read_parquet(SAMPLE / "golden_labels.parquet")
    rows = rows.merge(golden, on=["query_id", "passage_id"]).head(pairs)
    texts = rows["query"].tolist(), rows["passage"].tolist()
    validation = ValidationPairs(rows["query_id"].tolist(), *texts, rows["golden_label"].to_numpy("int64"))
    settings = ExportSettings(("fp32", "int8"), 0, 0.05, True)
    export_model(str(model), texts, validation, settings, {}, lambda line: None)
    return model


def measure(model: Path, backend: str, precision: str, workers: int, pairs: int) -> tuple[float, float, str]:
    """RSS and PSS of a worker in MB, on average, and whether it has loaded torch."""
    arguments = [str(model), backend, precision, str(pairs), str(SAMPLE / "pairs.parquet")]
    command = [sys.executable, "-c", _WORKER, *arguments]
    running = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(workers)]
    told = [process.stdout.readline().decode().strip() for process in running]
    found = [psutil.Process(process.pid).memory_full_info() for process in running]
    for process in running:
        process.communicate(b"\n")
    return sum(one.rss for one in found) / workers / 1e6, sum(one.pss for one in found) / workers / 1e6, told[0]


def main() -> None:
    """Print a line for each side."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=300)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = exported(Path(folder), 200)
        for backend, precision in SIDES:
            rss, pss, torch = measure(model, backend, precision, chosen.workers, chosen.pairs)
            print(f"{backend:<10}{precision:<6}{rss:>8,.0f} MB resident {pss:>8,.0f} MB with shares, torch: {torch}")


if __name__ == "__main__":
    main()
