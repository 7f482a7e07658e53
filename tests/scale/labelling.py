"""Labelling pairs/s of `mkdm label` beside the teacher's scorer alone, in turns, over the same pairs.

`python tests/scale/labelling.py --teacher DIR --pairs FILE.parquet [--rows 1000] [--max-tokens 160] [--rounds 2]`
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import yaml

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

import pyarrow.parquet as pq  # noqa: E402

from cluster.session import ClusterConfig, start_session  # noqa: E402
from jobs.label import LabelConfig, run  # noqa: E402
from mkdm.scoring.scorer import Scorer  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--teacher", required=True)
    parser.add_argument("--pairs", required=True)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--max-tokens", type=int, default=160)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    pairs = pq.read_table(arguments.pairs, columns=["query_id", "passage_id", "query", "passage"])
    pairs = pairs.take([row * pairs.num_rows // arguments.rows for row in range(arguments.rows)])
    rates: dict[str, list[float]] = {"mkdm label": [], "scorer alone": []}
    with tempfile.TemporaryDirectory() as folder:
        pq.write_table(pairs, f"{folder}/pairs.parquet")
        teacher = {"id": "t", "model": str(Path(arguments.teacher).resolve()), "max_tokens": arguments.max_tokens}
        Path(folder, "zoo.yaml").write_text(yaml.safe_dump({"teachers": [teacher]}))
        spark = start_session(ClusterConfig(), "labelling")
        scorer = Scorer.load(arguments.teacher, max_length=arguments.max_tokens)
        texts = pairs["query"].to_pylist(), pairs["passage"].to_pylist()
        scorer.score(*(column[:16] for column in texts))
        for number in range(arguments.rounds):
            config = LabelConfig(f"{folder}/zoo.yaml", f"{folder}/w{number}", pairs=f"{folder}/pairs.parquet")
            (report,) = run(spark, config)
            rates["mkdm label"].append(report.totals.rows_read / report.totals.seconds)
            started = time.monotonic()
            scorer.score(*texts)
            rates["scorer alone"].append(arguments.rows / (time.monotonic() - started))
            print({name: round(found[-1], 1) for name, found in rates.items()}, flush=True)
    job, alone = (median(found) for found in rates.values())
    print(f"{arguments.rows:,} pairs: {report.totals.padding_ratio:.1%} padding, the job {job:.1f} pairs/s, the scorer")
    print(f"alone {alone:.1f}: {job / alone:.0%}")


if __name__ == "__main__":
    main()
