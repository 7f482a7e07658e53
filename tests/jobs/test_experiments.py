"""A small plan from its YAML file to the tables, and the notebook that reads them."""

from pathlib import Path

import nbformat
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from experiment_plans import PLAN, RUN, write_inputs, write_plan
from nbclient import NotebookClient
from pyspark.sql import functions as F

from jobs.engine import Warehouse
from jobs.experiments import ExperimentsConfig, run
from mkdm.errors import RunFailedError

pytestmark = pytest.mark.slow  # tests/mkdm/experiments does all but the tables
NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "paper_tables.ipynb"


@pytest.fixture(scope="module")
def filled(tmp_path_factory, tokenizers, sample_pairs, spark) -> str:
    """A warehouse with the tables of a plan of which one run fails."""
    folder = tmp_path_factory.mktemp("experiments")
    pq.write_table(pa.Table.from_pylist(sample_pairs[:5]), folder / "pairs.parquet")
    too_deep = {"too-deep": RUN | {"settings": {"num_layers": 40}}}
    config = ExperimentsConfig(
        plan=write_plan(folder / "paper_tables.yaml", runs=too_deep | PLAN["runs"]),
        warehouse=str(folder / "warehouse"),
        parallel=2,
        **write_inputs(folder, tokenizers["bert"]),
    )
    with pytest.raises(RunFailedError, match=r"1 of 10 tasks failed.*train too-deep-0: .*cannot take 40"):
        run(spark, config)
    return config.warehouse


def test_one_run_fails_and_the_tables_have_the_others(filled, spark):
    tables = Warehouse(spark, filled)
    figures = tables.table("experiments").read().toPandas()
    assert set(figures.state) == {"complete"}
    assert len(figures[(figures.split == "test") & (figures.source == "all")]) == 9  # 7 runs and 2 ensembles
    steps = tables.table("experiment_steps").read().toPandas()
    assert set(steps[steps.run == "mkdm"].stage) == {"stage one", "training"}
    assert tables.table("experiment_latency").read().count() == 0  # nothing is timed beside a run that failed


def test_other_plans_stay_in_the_tables(filled, spark):
    table = Warehouse(spark, filled).table("experiment_steps")
    rows = table.read().limit(3)
    table.replace(rows.withColumn("plan", F.lit("it's")), "plan", "it's")
    table.replace(rows.limit(1).withColumn("plan", F.lit("it's")), "plan", "it's")
    counts = {row["plan"]: row["count"] for row in table.read().groupBy("plan").count().collect()}
    assert counts["it's"] == 1
    assert counts["paper_tables"] > 3


def test_the_notebook_reads_the_tables(filled, monkeypatch):
    monkeypatch.setenv("MKDM_WAREHOUSE", filled)
    notebook = nbformat.read(NOTEBOOK, 4)
    for cell in notebook.cells:
        cell["outputs"] = []
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    text = "".join(output.get("text", "") for output in outputs)
    assert "5 kinds of run, 9 runs with test figures" in text
    assert "MKDM over 1-o-1" in text
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 3
