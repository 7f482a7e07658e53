"""The whole job beside the scorer alone, on the same pairs: `python tests/scale/job_rate.py --built WAREHOUSE`.

The warehouse is one that `tests/scale/funnel.py` built, say of 130 queries and 50,000 pairs. The model is the sample's
student, exported here, by OpenVINO. The job's rate is told whole, and between the end of its first task and that of its
last, which leaves Spark's start, the model's load and the commits out. The scorer alone gets the pairs in the order of
their documents, by 8,192, in a process of its own, before and after the job.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from datetime import datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from worker_memory import exported  # noqa: E402

from cluster.session import ClusterConfig, start_session  # noqa: E402
from jobs import score  # noqa: E402
from jobs.engine.pairs import read_pairs  # noqa: E402
from jobs.engine.scoring import ROWS_PER_TASK  # noqa: E402
from jobs.engine.warehouse import Warehouse  # noqa: E402

_ALONE = """
import sys, time
import pandas as pd
from mkdm.scoring import load_scorer
model, precision, file, step = sys.argv[1:]
rows = pd.read_parquet(file)
scorer = load_scorer(model, "openvino", precision)
scorer.score(rows["query"][:200].tolist(), rows["passage"][:200].tolist())
began = time.monotonic()
for start in range(0, len(rows), int(step)):
    part = rows.iloc[start:start + int(step)]
    scorer.score(part["query"].tolist(), part["passage"].tolist())
print(len(rows) / (time.monotonic() - began))
"""


def alone(model: Path, precision: str, file: Path) -> float:
    """Pairs/s of the scorer in a process without Spark, its load and first batches left out."""
    command = [sys.executable, "-c", _ALONE, str(model), precision, str(file), str(ROWS_PER_TASK)]
    return float(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()[-1])


def between_tasks(ui: str) -> tuple[float, int]:
    """Seconds from the end of the first task of the stage that took longest to the end of its last; and its tasks."""

    def asked(path: str) -> Any:
        with urllib.request.urlopen(f"{ui}/api/v1/applications{path}") as answer:
            return json.load(answer)

    app = asked("")[0]["id"]
    longest = max(asked(f"/{app}/stages?status=complete"), key=lambda stage: int(stage["executorRunTime"]))
    tasks = asked(f"/{app}/stages/{longest['stageId']}/{longest['attemptId']}/taskList?length=100000")
    ends = sorted(
        datetime.strptime(task["launchTime"].replace("GMT", "+0000"), "%Y-%m-%dT%H:%M:%S.%f%z").timestamp()
        + task["duration"] / 1000
        for task in tasks
    )
    return ends[-1] - ends[0], len(tasks)


def main() -> None:
    """Measure and print a line each."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--built", type=Path, required=True, help="a warehouse that build-pairs made")
    parser.add_argument("--precision", default="int8")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        model = exported(folder, 1000)
        shutil.copytree(arguments.built, folder / "warehouse")
        spark = start_session(ClusterConfig(), "job rate")
        warehouse = Warehouse(spark, str(folder / "warehouse"))
        pairs = read_pairs(spark, warehouse.table("pairs")).rows.select("passage_id", "query", "passage").toPandas()
        pairs.sort_values("passage_id").to_parquet(folder / "pairs.parquet")
        rows = len(pairs)
        before = alone(model, arguments.precision, folder / "pairs.parquet")
        began = time.monotonic()
        config = score.ScoreConfig(
            model=str(model), warehouse=warehouse.root, backend="openvino", precision=arguments.precision, chunks=1
        )
        report = score.run(spark, config)
        seconds = time.monotonic() - began
        assert report.totals.rows_written == rows, "all of them have a score"
        spent, tasks = between_tasks(str(spark.sparkContext.uiWebUrl))
        after = alone(model, arguments.precision, folder / "pairs.parquet")
        rate = rows * (tasks - 1) / tasks / spent
        by_scorer = 2 / (1 / before + 1 / after)
        print(f"pairs {rows:,}; tasks {tasks}; {arguments.precision}")
        print(f"scorer alone: {before:,.0f} before, {after:,.0f} pairs/s after the job")
        print(f"job, between its tasks: {rate:,.0f} pairs/s, {rate / by_scorer:.1%} of the scorer alone")
        whole = rows / seconds
        print(f"job, whole, in a warm session: {seconds:.1f} s, {whole:,.0f} pairs/s, {whole / by_scorer:.1%}")


if __name__ == "__main__":
    main()
