"""Executors without a registry, on a standalone cluster of two workers: the driver sends them the model."""

import os
import shutil

import mlflow
import pytest
from loopback import LoopbackCluster

from jobs.engine import Warehouse
from mkdm.export import Registration, register


@pytest.mark.slow
def test_executors_get_the_bytes_from_the_driver(spark, start_driver, tables, student_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("MKDM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path}/mlruns")
    register(student_folder, Registration("student", "champion"), {}, {})
    warehouse = Warehouse(spark, str(shutil.copytree(tables, tmp_path / "warehouse")))
    with LoopbackCluster(tmp_path / "spark") as cluster:
        flags = {"model": "models:/student@champion", "warehouse": warehouse.root, "precision": "fp32"}
        flags |= {"master": cluster.master, "executor_cores": 1, "executor_memory": "1g", "rows_per_task": 100}
        conf = {
            "spark.executorEnv.MKDM_CACHE": str(tmp_path / "executors"),
            "spark.executorEnv.MLFLOW_TRACKING_URI": "http://127.0.0.1:9",
            "spark.executorEnv.PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        }
        start_driver(flags, conf).wait()
    assert warehouse.table("scores").read().count() == 300
    (copy,) = [path for path in (tmp_path / "executors").iterdir() if path.is_dir()]
    assert copy.name in os.listdir(tmp_path / "cache")
    assert mlflow.get_tracking_uri().startswith("file:")
