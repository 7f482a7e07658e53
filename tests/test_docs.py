"""Every command in the README and in CONTRIBUTING: its flags are taken, and it runs, in order, on a small warehouse."""

import json
import os
import re
import shlex
import subprocess
import sys
import zlib
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake
from query_logs import sample_log
from tiny_models import tiny_student

from jobs.__main__ import COMMANDS
from mkdm.model.checkpoint import save_checkpoint

ROOT = Path(__file__).parent.parent
ELSEWHERE = {
    "benchmark": "tests/jobs/test_benchmark.py",
    "experiments": "tests/jobs/test_experiments.py",
    "export-model": "tests/jobs/test_export_model.py",
    "pack": "tests/cluster/test_pack.py",
    "score --master": "tests/cluster/test_pack.py",
    "make": ".ci/run",
    "SPARK_CONF_DIR=cluster/TARGET spark-submit": "tests/cluster/test_targets.py",
}
"""Commands that need minutes, a good model, a cluster or a network, by how they begin, and what runs them."""


def fenced(text: str) -> list[str]:
    """The commands of the blocks that name no language: comments off, lines that go on joined."""
    blocks = [block for name, block in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL) if not name]
    lines = [line for block in blocks for line in re.sub(r"\\\n\s*", "", block).splitlines()]
    plain = [re.sub(r"\s+#.*", "", line).strip() for line in lines]
    return [line for line in plain if re.match(r"mkdm [a-z-]+( --|$)|make |SPARK_CONF_DIR=", line)]


README = fenced((ROOT / "README.md").read_text())
GUIDE = fenced((ROOT / "CONTRIBUTING.md").read_text())


def elsewhere(command: str) -> str | None:
    """What runs a command that this test does not run."""
    begins = command.removeprefix("mkdm ")
    return next((test for start, test in ELSEWHERE.items() if begins.startswith(start)), None)


class Parsed(Exception):
    """Its flags were taken."""


@pytest.mark.parametrize("command", [line for line in dict.fromkeys([*README, *GUIDE]) if line.startswith("mkdm ")])
def test_flags_are_taken(command, monkeypatch, tmp_path):
    name, *flags = shlex.split(command)[1:]
    module = import_module(COMMANDS[name][0])
    if name == "benchmark" and find_spec("ray") is None and "--sides" not in flags:  # `make test` has no peers
        flags += ["--sides", "job:auto:auto"]
    parse = module.parse_config

    def stop(*args, **kwargs):
        parse(*args, **kwargs)
        raise Parsed

    monkeypatch.setattr(module, "parse_config", stop)
    with pytest.raises(Parsed):
        module.main(flags)


def test_every_command_of_the_engine_is_shown():
    shown = {line.split()[1] for line in README if line.startswith("mkdm ")} | {"demo"}  # make demo
    assert shown == set(COMMANDS)


def test_what_is_run_elsewhere_is_run_there():
    for start, test in ELSEWHERE.items():
        assert (ROOT / test).exists()
        assert [line for line in [*README, *GUIDE] if line.removeprefix("mkdm ").startswith(start)], start


SCRIPT = """
import json, sys
from deltalake import DeltaTable
from jobs.__main__ import main

for words in json.load(sys.stdin):
    if "RUN" in words:  # the first that was complete
        rows = DeltaTable("W/runs").to_pandas()
        rows = rows[(rows.job == "score") & (rows.state == "complete") & rows.chunk.isna()]
        words[words.index("RUN")] = rows.sort_values("finished_at").run_id.iloc[0]
    print("RUNS", *words, flush=True)
    main(words)
"""
PLACES = {"tests/sample/student": "DIR", "DIR1": "DIR", "OTHER": "DIR", "s3a://bucket/qa": "W", "main.qa": "W"}


def run_all(commands: list[str], folder: Path, places: dict[str, str]) -> int:
    """Run commands in one process whose folder that is; returns how many ran."""

    def put(word: str) -> str:
        return ",".join(places.get(part, part) for part in word.split(","))

    given = json.dumps([[put(word) for word in shlex.split(command)[1:]] for command in commands])
    env = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], input=given, cwd=folder, env=env, capture_output=True, text=True, check=False
    )
    ran = [line for line in done.stdout.splitlines() if line.startswith("RUNS ")]
    assert done.returncode == 0, f"{ran[-1:]}\n{done.stderr[-3000:]}"
    return len(ran)


@pytest.mark.slow
def test_commands_run_in_order(spark, warehouse, tokenizers, sample_pairs, tmp_path):
    """The README's, then the guide's, each on what the ones before it left, in the folder W."""
    warehouse.table("pairs").drop()  # nobody built it, and the first command builds one
    sample_log(100, 40).write(spark, warehouse)
    Path(warehouse.root).rename(tmp_path / "W")
    (tmp_path / "build").mkdir()
    pq.write_table(pa.Table.from_pylist(sample_pairs), tmp_path / "pairs.parquet")
    spark.createDataFrame(sample_pairs).toPandas().to_csv(tmp_path / "mine.csv", index=False)
    for seed, name in enumerate(("DIR", "DIR2", "DIR3", "NEW")):
        model = tiny_student("bert", tokenizers["bert"], ("bge", "e5"), seed=seed, tokens=512)
        save_checkpoint(model, tokenizers["bert"], tmp_path / name)
    (tmp_path / "zoo.yaml").write_text("teachers:\n  - {id: a, model: DIR2}\n  - {id: b, model: DIR3}\n")
    commands = [one for one in [*README, *GUIDE] if not elsewhere(one) and not one.startswith("mkdm cost")]
    assert len(commands) > 20
    assert run_all(commands[:1], tmp_path, PLACES) == 1
    pairs = DeltaTable(str(tmp_path / "W" / "pairs"))
    golden = pairs.to_pandas(columns=["query_id", "passage_id"])
    golden["golden_label"] = [zlib.crc32(key.encode()) % 2 for key in golden.passage_id]
    write_deltalake(str(tmp_path / "W" / "golden_labels"), golden.assign(label_source="sample"))
    places = PLACES | {"12": str(pairs.version())}
    assert run_all(commands[1:], tmp_path, places) == len(commands) - 1
