"""Every command in the README and in CONTRIBUTING: its flags are taken, and it runs, in order, on a small warehouse."""

import re
import shlex
import shutil
from importlib import import_module
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from query_logs import sample_log
from tiny_models import tiny_student

from jobs.cli import COMMANDS
from jobs.cli import main as mkdm
from jobs.ledger import Ledger
from mkdm.checkpoint import save_checkpoint

ROOT = Path(__file__).parent.parent
ELSEWHERE = {
    "benchmark": "tests/jobs/test_benchmark.py",
    "experiments": "tests/jobs/test_experiments.py",
    "pack": "tests/cluster/test_pack.py",
    "score --master": "tests/cluster/test_pack.py",
    "make": ".ci/run",
    "SPARK_CONF_DIR=cluster/TARGET spark-submit": "tests/cluster/test_targets.py",
}
"""Commands that need minutes, a cluster or a network, by how they begin, and what runs them."""


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


@pytest.mark.slow
def test_commands_run_in_order(spark, warehouse, student_folder, tokenizers, sample_pairs, tmp_path, monkeypatch):
    """The README's, then the guide's, each on what the ones before it left."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "build").mkdir()
    sample_log().write(spark, warehouse)
    golden = [(pair["query_id"], pair["passage_id"], i % 2, "sample") for i, pair in enumerate(sample_pairs)]
    columns = "query_id string, passage_id string, golden_label int, label_source string"
    warehouse.table("golden_labels").merge_to(spark.createDataFrame(golden, columns), ("query_id", "passage_id"))
    pq.write_table(pa.Table.from_pylist(sample_pairs), "pairs.parquet")
    spark.createDataFrame(sample_pairs).toPandas().to_csv("mine.csv", index=False)
    for name in ("DIR2", "DIR3", "NEW"):
        save_checkpoint(tiny_student("bert", tokenizers["bert"], ("bge",)), tokenizers["bert"], tmp_path / name)
    shutil.copytree(student_folder, "DIR")
    (tmp_path / "zoo.yaml").write_text("teachers:\n  - {id: a, model: DIR2}\n  - {id: b, model: DIR3}\n")
    places = {"tests/sample/student": "DIR", "DIR1": "DIR", "OTHER": "DIR", "12": "0"}
    places |= dict.fromkeys(["W", "s3a://bucket/qa", "main.qa"], warehouse.root)
    places["W/training_set"] = f"{warehouse.root}/training_set"
    ran = []
    for command in [*README, *GUIDE]:
        if elsewhere(command) or command.startswith("mkdm cost"):
            continue
        runs = Ledger(warehouse.table("runs")).states(job="score") if warehouse.table("runs").exists() else []
        scored = [state for state in runs if state.state == "complete"]
        here = places | ({"RUN": scored[0].run.run_id} if scored else {})
        words = [",".join(here.get(part, part) for part in word.split(",")) for word in shlex.split(command)]
        mkdm(words[1:])
        ran.append(command)
    assert len(ran) > 20
