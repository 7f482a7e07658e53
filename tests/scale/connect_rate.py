"""A job over Spark Connect beside the same job in a classic session: `python tests/scale/connect_rate.py`.

The sample's pairs, and their queries with passages of other rows, are scored by the sample's student in sessions of the
same settings, in turns; the server is a process of its own on loopback. Each session scores ten pairs before, so that
it is warm. Seconds are of the whole job, to its report.
"""

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from pyspark.sql import SparkSession

ROOT = Path(__file__).parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from connect_server import connect_server, connect_session  # noqa: E402
from worker_memory import SAMPLE, exported  # noqa: E402

from cluster.session import ClusterConfig, start_session  # noqa: E402
from jobs import score  # noqa: E402
from jobs.engine.warehouse import Warehouse  # noqa: E402

SIDES = ("classic", "connect")
MEMORY = "2g"


@contextlib.contextmanager
def session_of(side: str, folder: Path) -> Iterator[SparkSession]:
    """A session of that side."""
    if side == "classic":
        session = start_session(ClusterConfig(driver_memory=MEMORY), "connect rate")
        yield session
        session.stop()
        return
    cores = str(os.cpu_count())
    conf = {"spark.sql.shuffle.partitions": cores, "spark.io.compression.codec": "zstd"}
    with connect_server(folder, conf, os.cpu_count() or 1) as url, connect_session(url) as remote:
        yield remote


def different_pairs(copies: int) -> pd.DataFrame:
    """The sample's pairs and, for each further copy, its queries with the passages of rows some hundreds further on."""
    rows, passages = pd.read_parquet(SAMPLE / "pairs.parquet"), ["passage_id", "passage"]
    copied = [rows.assign(**{one: np.roll(rows[one], 300 * copy) for one in passages}) for copy in range(copies)]
    return pd.concat(copied).drop_duplicates(["query_id", "passage_id"])


def seconds_of(side: str, folder: Path, model: str, copies: int, precision: str) -> float:
    """Seconds of the job, whose tables go below the folder."""
    many = different_pairs(copies)
    with session_of(side, folder) as spark:
        for name, some in (("warm", many.head(10)), ("measured", many)):
            warehouse = Warehouse(spark, str(folder / f"{side}-{name}"))
            warehouse.table("pairs").overwrite(spark.createDataFrame(some))
            config = score.ScoreConfig(model=model, warehouse=warehouse.root, backend="openvino", precision=precision)
            began = time.monotonic()
            report = score.run(spark, config)
            seconds = time.monotonic() - began
            assert report.totals.rows_written == len(some), "all of them have a score"
    return seconds


def main() -> None:
    """Measure in turns and print a line each."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--copies", type=int, default=3, help="of the sample's 3,009 pairs")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--side", choices=SIDES, help="measure this one alone, in the folder that is given")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--model", help="of that side")
    given = parser.parse_args()
    if given.side:
        print(seconds_of(given.side, given.folder, given.model, given.copies, given.precision))
        return
    pairs, best = len(different_pairs(given.copies)), dict.fromkeys(SIDES, float("inf"))
    with tempfile.TemporaryDirectory() as place:
        flags = [
            "--copies",
            str(given.copies),
            "--precision",
            given.precision,
            "--model",
            str(exported(Path(place), 200)),
        ]
        for number, side in product(range(given.rounds), SIDES):
            folder = Path(place, f"{side}-{number}")
            folder.mkdir()
            command = [sys.executable, __file__, "--side", side, "--folder", str(folder), *flags]
            told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
            seconds = float(told.splitlines()[-1])
            best[side] = min(best[side], seconds)
            print(f"round {number + 1}: {side} {seconds:.1f} s, {pairs / seconds:,.1f} pairs/s", flush=True)
    print(f"over Connect at {best['classic'] / best['connect']:.1%} of the classic rate, the best of each")


if __name__ == "__main__":
    main()
