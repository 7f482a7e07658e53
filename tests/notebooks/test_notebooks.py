"""The notebooks run top to bottom in one kernel, on whole queries of the sample; and what the committed ones hold."""

import ast
import json
import re
from contextlib import nullcontext
from pathlib import Path

import nbformat
import pyarrow.parquet as pq
import pytest
from connect_server import connect_server
from deltalake import DeltaTable
from jupyter_client import KernelManager
from nbclient import NotebookClient
from tiny_models import SAMPLE

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
TINY = {  # as the fixture `spark` has it
    "spark.ui.enabled": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.adaptive.enabled": "false",
}
QUERIES = 44


class Tour:
    """A kernel that runs one notebook after the other, each from a clean start in the folder where Jupyter puts it."""

    def __init__(self, folder: Path, remote: str | None = None) -> None:
        self.folder, self.remote = folder, remote
        rows = pq.read_table(SAMPLE / "pairs.parquet").to_pylist()
        query_ids = list(dict.fromkeys(row["query_id"] for row in rows))
        chosen = set(query_ids[:: len(query_ids) // QUERIES][:QUERIES])
        table = pq.read_table(SAMPLE / "pairs.parquet")
        kept = [query_id in chosen for query_id in table["query_id"].to_pylist()]
        self.pairs = sum(kept)
        pq.write_table(table.filter(kept), folder / "pairs.parquet")
        (folder / "spark-defaults.conf").write_text("".join(f"{name} {value}\n" for name, value in TINY.items()))
        self.kernel = KernelManager(kernel_name="python3")

    def run(self, name: str, **given: object) -> "Outputs":
        """Execute a notebook with these parameters."""
        environment = {f"MKDM_{key.upper()}": str(value) for key, value in given.items()}
        environment["SPARK_CONF_DIR"] = str(self.folder)
        environment |= {} if self.remote is None else {"SPARK_REMOTE": self.remote}
        notebook = nbformat.read(FOLDER / f"{name}.ipynb", 4)
        for cell in notebook.cells:
            cell["outputs"] = []
        clean = f"%reset -f\nimport os\nos.chdir({str(FOLDER)!r})\nos.environ.update({environment!r})"
        notebook.cells.insert(0, nbformat.v4.new_code_cell(clean))
        NotebookClient(notebook, timeout=240, km=self.kernel).execute()
        return Outputs([output for cell in notebook.cells for output in cell.get("outputs", [])])

    def rows(self, table: str) -> int:
        """How many rows a table has."""
        return DeltaTable(str(self.folder / table)).to_pyarrow_dataset().count_rows()


class Outputs:
    """What a notebook shows: its printed text, its tables as text, and how many plots."""

    def __init__(self, outputs: list[dict]) -> None:
        assert [output for output in outputs if output["output_type"] == "error"] == []
        shown = [output.get("data", {}) for output in outputs]
        self.plots = sum("image/png" in data for data in shown)
        self.text = "".join(output.get("text", "") for output in outputs)
        self.tables = [data["text/plain"] for data in shown if "text/html" in data]


@pytest.fixture(scope="module", params=["classic", pytest.param("connect", marks=pytest.mark.slow)])
def tour(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("notebooks")
    server = connect_server(folder, TINY) if request.param == "connect" else nullcontext()
    with server as remote:
        started = Tour(folder, remote)
        yield started
        started.kernel.shutdown_kernel(now=True)


def test_quick_start(tour):
    outputs = tour.run(
        "quick_start",
        warehouse=tour.folder / "quick_start",
        pairs=tour.folder / "pairs.parquet",
        evaluation=tour.folder / "evaluation",
    )
    assert tour.rows("quick_start/scores") == tour.pairs
    assert re.search(rf"scored +{tour.pairs}\n", outputs.text)
    assert len(outputs.tables) == 4  # three queries, and the quality
    assert all(source in outputs.tables[-1] for source in ("all", "amazon", "medquad", "newwiki", "squad"))
    assert outputs.plots == 1
    assert (tour.folder / "evaluation" / "evaluation.html").exists()


@pytest.mark.slow
def test_label_and_train(tour):
    files = tour.folder / "files"
    outputs = tour.run(
        "label_and_train",
        warehouse=tour.folder / "label_and_train",
        pairs=tour.folder / "pairs.parquet",
        folder=files,
        epochs=1,
    )
    assert tour.rows("label_and_train/soft_labels") == 2 * tour.pairs
    assert tour.rows("label_and_train/test_pairs") < tour.pairs
    assert (files / "student-3-1-32" / "model.safetensors").exists()
    log = [json.loads(line) for line in (files / "student-3-1-32" / "training_log.jsonl").read_text().splitlines()]
    assert set(log[-1]["losses"]) == {"golden", "soft[sample-160]", "soft[sample-48]"}
    assert "auc" in log[-1]
    assert "p_value" in outputs.tables[-1]
    assert outputs.plots == 3


@pytest.mark.slow
def test_score_and_rank_then_read_the_scores(tour):
    warehouse = tour.folder / "score_and_rank"
    outputs = tour.run("score_and_rank", warehouse=warehouse, queries=8, chunks=2)
    assert outputs.plots == 1
    assert tour.rows("score_and_rank/scores") == tour.rows("score_and_rank/pairs") > 0
    runs = re.findall(r"^score-\S+ +(\w+) ", outputs.text, re.MULTILINE)
    assert runs == ["complete", "complete"]
    ranked = tour.rows("score_and_rank/ranked_passages")

    outputs = tour.run("read_scores", warehouse=warehouse)
    assert outputs.plots == 1
    assert "rows came or went with version" in outputs.text
    by_rank = outputs.tables[-1]
    assert sum(int(line.split()[2]) for line in by_rank.splitlines()[1:]) == ranked


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_committed_notebook_has_run_whole_and_shows_no_path(path):
    text = path.read_text()
    code = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    for told in ("/work/", "/tmp/", "/home/", "/root/", "Traceback"):
        assert told not in text
    assert len(text) < 300_000


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_calls_jobs_and_defines_nothing(path):
    cells = json.loads(path.read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    nodes = [node for source in code for node in ast.walk(ast.parse(source))]
    assert not any(isinstance(node, ast.FunctionDef | ast.ClassDef) for node in nodes)
    modules = {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}
    modules |= {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    ours = {module for module in modules if module.split(".")[0] in {"mkdm", "udfs", "jobs", "cluster", "tests"}}
    assert {module.split(".")[0] for module in ours} == {"jobs"}
