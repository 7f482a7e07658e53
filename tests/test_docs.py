"""The documents: their sizes, links and paths, and every command in them, whose flags are taken and which runs."""

import ast
import io
import json
import os
import re
import shlex
import subprocess
import sys
import zlib
from contextlib import redirect_stdout
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake
from query_logs import sample_log
from tiny_models import tiny_student

from jobs.__main__ import COMMANDS
from mkdm.model.checkpoint import save_checkpoint
from mkdm.model.zoo import read_zoo

ROOT = Path(__file__).parent.parent
FOLDERS = ("jobs", "mkdm", "mkdm/serving", "cluster", "tests", "tests/scale", "tests/device", "notebooks")
DOCUMENTS = ("README.md", "CONTRIBUTING.md", *(f"{folder}/README.md" for folder in FOLDERS))
TEXTS = {name: (ROOT / name).read_text() for name in DOCUMENTS}
ELSEWHERE = {
    "benchmark": "tests/jobs/test_benchmark.py",
    "cost": "tests/jobs/test_cost.py",
    "demo": "tests/jobs/test_demo.py",
    "experiments": "tests/jobs/test_experiments.py",
    "export-model": "tests/jobs/test_export_model.py",
    "pack": "tests/cluster/test_pack.py",
    "serve": "tests/mkdm/serving/test_server.py",
    "follow --view ranked.sqlite --warehouse W --every": "tests/jobs/test_follow.py",
    "score --master": "tests/cluster/test_pack.py",
    "make": ".ci/run",
    "SPARK_CONF_DIR=cluster/TARGET spark-submit": "tests/cluster/test_targets.py",
}
"""Commands that need minutes, a good model, a cluster or a network, by how they begin, and what runs them."""
OTHERS = {
    "pytest": {"--slow", "--connect"},
    "pip": {"--no-deps", "--require-hashes", "--requirement"},
    "ruff": {"--fix"},
}
"""Flags in the documents of tools that are not ours."""
PLACEHOLDER = re.compile(r"\b[A-Z]{4,}\b(?!\.md)")
"""In a path, what the reader puts something of their own for, such as jobs/NAME.py."""


def shown(text: str) -> list[str]:
    """The commands of the blocks that name no language, and of the first cells of tables, in their order.

    Comments are taken off, and lines that go on are joined.
    """
    pieces = re.findall(r"^```(\w*)\n(.*?)^```$|^\| `(mkdm [^`]+)` \|", text, re.MULTILINE | re.DOTALL)
    blocks = [cell or ("" if language else block) for language, block, cell in pieces]
    lines = [line for block in blocks for line in re.sub(r"\\\n\s*", "", block).splitlines()]
    plain = [re.sub(r"\s+#.*", "", line).strip() for line in lines]
    return [line for line in plain if re.match(r"mkdm [a-z-]+( --|$)|make |SPARK_CONF_DIR=", line)]


SHOWN = list(dict.fromkeys(line for text in TEXTS.values() for line in shown(text)))


def blocks_of(language: str, text: str) -> list[str]:
    """The blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def prose(text: str) -> str:
    """A document without its blocks."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def code(text: str) -> list[str]:
    """What stands between backquotes in prose and tables, on one line each."""
    return [" ".join(span.split()) for span in re.findall(r"(?<!`)`([^`]+)`(?!`)", prose(text))]


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives the headings."""
    headings = re.findall(r"^#+ (.+)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def elsewhere(command: str) -> str | None:
    """What runs a command that this test does not run."""
    begins = command.removeprefix("mkdm ")
    return next((test for start, test in ELSEWHERE.items() if begins.startswith(start)), None)


def test_readme_is_read_in_ten_minutes():
    assert len(TEXTS["README.md"].splitlines()) <= 180
    assert len(TEXTS["README.md"].encode()) <= 12_000


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_document_is_read_in_one_sitting(name):
    """Lines of a document, and of a paragraph or item of a list; characters of a line outside of tables."""
    assert len(TEXTS[name].splitlines()) <= 300
    lines = [line for line in prose(TEXTS[name]).splitlines() if not line.startswith(("|", "#"))]
    assert [line for line in lines if len(line) > 120] == []
    paragraphs = re.split(r"\n\s*\n|\n(?=\s*(?:- |\d+\. ))", "\n".join(lines))
    assert [part for part in paragraphs if len(part.strip().splitlines()) > 5] == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name):
    links = re.findall(r"\]\(([^)]+)\)", prose(TEXTS[name]))
    for link in links:
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = ((ROOT / name).parent / path).resolve() if path else ROOT / name
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text()), link


@pytest.mark.parametrize("name", [*DOCUMENTS, "tests/sample/README.md", "tests/sample/student/README.md"])
def test_named_files_are_there(name):
    text = (ROOT / name).read_text()
    words = [word.rstrip(",:") for span in code(text) for word in re.split(r"[\s=]", span)]
    ours = re.compile(rf"(?:{'|'.join(FOLDERS)}|udfs|\.ci)/[\w./-]+|[\w./-]+\.(?:py|ipynb|md|txt|lock|toml|cfg)")
    named = [word for word in words if ours.fullmatch(word) and not PLACEHOLDER.search(word)]
    assert named
    missing = [word for word in named if not any((at / word).exists() for at in (ROOT, (ROOT / name).parent))]
    assert missing == []


def test_no_figures_stand_in_two_documents():
    """No row of a table that has three numbers or more."""
    rows = [line for text in TEXTS.values() for line in text.splitlines() if line.startswith("|")]
    figures = [row for row in rows if len(re.findall(r"\d[\d.,]*", row)) >= 3]
    assert len(figures) > 50
    assert len(set(figures)) == len(figures)


class Parsed(Exception):
    """Its flags were taken."""


@pytest.mark.parametrize("command", [line for line in SHOWN if line.startswith("mkdm ")])
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
    assert {line.split()[1] for line in shown(TEXTS["README.md"]) if line.startswith("mkdm ")} == set(COMMANDS)


def flags_of(name: str) -> set[str]:
    """The flags of a command, as its help tells them."""
    help_text = io.StringIO()
    with redirect_stdout(help_text), pytest.raises(SystemExit):
        import_module(COMMANDS[name][0]).main(["--help"])
    return set(re.findall(r"--[a-z][a-z-]*", help_text.getvalue()))


def test_flags_in_prose_are_real():
    """Those after a command are its own, those after a script its own, and those alone somebody's."""
    ours = {name: flags_of(name) for name in COMMANDS}
    anybody = set().union(*ours.values(), *OTHERS.values())
    seen = set()
    for span in (span for text in TEXTS.values() for span in code(text)):
        first, second, *_ = [*span.split(), "", ""]
        known = anybody
        if first == "mkdm" and second in COMMANDS:
            known = ours[second]
        elif first == "python" and second.startswith("tests/"):
            known = set(re.findall(r"--[a-z][a-z-]*", (ROOT / second).read_text()))
        used = {word.partition("=")[0] for word in span.split() if re.match(r"--[a-z]", word)}
        assert used <= known, span
        seen |= used
    assert len(seen) > 30


def test_the_readmes_python_scores(monkeypatch):
    monkeypatch.chdir(ROOT)
    (block,) = blocks_of("python", TEXTS["README.md"])
    *lines, last = ast.parse(block).body
    names: dict[str, object] = {}
    exec(compile(ast.Module(lines, []), "README.md", "exec"), names)
    score = eval(compile(ast.Expression(last.value), "README.md", "eval"), names)
    assert score.dtype == np.float32
    assert score.shape == (1,)
    assert 0 < score[0] < 1


def test_the_zoo_that_is_shown_is_one(tmp_path):
    (block,) = blocks_of("yaml", TEXTS["mkdm/README.md"])
    (tmp_path / "zoo.yaml").write_text(block)
    first, second, *asked = read_zoo(tmp_path / "zoo.yaml")
    assert (first.id, first.max_tokens, second.id, second.max_tokens) == ("bge-12", 160, "e5-12", None)
    assert [one.prompting.label for one in asked] == ["entailment", None, "Yes"]
    assert "{query}\nB: {passage}\n{prompt}" in asked[-1].prompting.template


def test_what_is_run_elsewhere_is_run_there():
    for start, test in ELSEWHERE.items():
        assert (ROOT / test).exists()
        assert [line for line in SHOWN if line.removeprefix("mkdm ").startswith(start)], start


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
    """Document by document, each on what the ones before it left, in the folder W."""
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
    commands = [one for one in SHOWN if not elsewhere(one)]
    assert len(commands) > 20
    assert run_all(commands[:1], tmp_path, PLACES) == 1
    pairs = DeltaTable(str(tmp_path / "W" / "pairs"))
    golden = pairs.to_pandas(columns=["query_id", "passage_id"])
    golden["golden_label"] = [zlib.crc32(key.encode()) % 2 for key in golden.passage_id]
    write_deltalake(str(tmp_path / "W" / "golden_labels"), golden.assign(label_source="sample"))
    places = PLACES | {"12": str(pairs.version())}
    assert run_all(commands[1:], tmp_path, places) == len(commands) - 1
