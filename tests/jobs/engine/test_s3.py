"""From Delta on s3a:// to Delta on s3a://, with a model at s3a://, on a real S3 server on loopback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from s3_server import KEY, SECRET, s3_server

from cluster.delta import SESSION_CONF, delta_package
from mkdm.scoring.scorer import Scorer

pytest.importorskip("moto.server")
s3fs = pytest.importorskip("s3fs")
ROOT = Path(__file__).parents[3]
JOB = """
import sys
from cluster.session import ClusterConfig, start_session
from jobs.score import ScoreConfig, run
spark = start_session(ClusterConfig(), "s3")
model, pairs, warehouse = sys.argv[1:]
spark.read.parquet(pairs).write.format("delta").save(warehouse + "/pairs")
print(run(spark, ScoreConfig(model=model, warehouse=warehouse, precision="fp32", backend="torch", chunks=2)))
for row in spark.read.format("delta").load(warehouse + "/scores").collect():
    print("SCORE", row.query_id, row.passage_id, row.score)
for row in spark.read.format("delta").load(warehouse + "/runs").collect():
    print("RUN", row)
"""


def hadoop_aws() -> str:
    """The Maven coordinates of the S3 connector that belongs to pyspark's Hadoop."""
    import pyspark

    jar = next(Path(pyspark.__file__).parent.glob("jars/hadoop-client-api-*.jar"))
    return f"org.apache.hadoop:hadoop-aws:{jar.stem.removeprefix('hadoop-client-api-')}"


@pytest.mark.slow  # resolves 559 MB, of which all but one are the AWS SDK
def test_tables_and_model_on_s3(sample_pairs, student_folder, tmp_path, monkeypatch):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pairs = sample_pairs[:20]
    pq.write_table(pa.Table.from_pylist(pairs), tmp_path / "pairs.parquet")
    (tmp_path / "job.py").write_text(JOB)
    with s3_server(tmp_path / "log") as variables:
        env = {**os.environ, **variables, "MKDM_CACHE": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)}
        env |= {"PYSPARK_PYTHON": sys.executable, "PYSPARK_DRIVER_PYTHON": sys.executable}
        env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
        for name in variables:
            monkeypatch.setenv(name, variables[name])
        s3fs.S3FileSystem.clear_instance_cache()
        system = s3fs.S3FileSystem()
        system.mkdir("qa-tables")
        system.put(student_folder, "qa-tables/student", recursive=True)
        conf = {
            **SESSION_CONF,
            "spark.hadoop.fs.s3a.endpoint": variables["AWS_ENDPOINT_URL"],
            "spark.hadoop.fs.s3a.endpoint.region": "us-east-1",
            "spark.hadoop.fs.s3a.path.style.access": "true",
            "spark.ui.enabled": "false",
            "spark.eventLog.enabled": "true",
            "spark.eventLog.compress": "false",  # it is searched for the keys
            "spark.eventLog.dir": f"file://{tmp_path}/events",
            "spark.sql.shuffle.partitions": "2",
            "spark.databricks.delta.snapshotPartitions": "1",
        }  # the keys come from the environment, as models' do
        (tmp_path / "events").mkdir()
        flags = [f"--conf={key}={value}" for key, value in conf.items()]
        command = ["spark-submit", "--master", "local[2]", "--packages", f"{delta_package()},{hadoop_aws()}", *flags]
        command += [str(tmp_path / "job.py"), "s3a://qa-tables/student", f"file://{tmp_path}/pairs.parquet"]
        command += ["s3a://qa-tables/w"]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    lines = [line.split() for line in done.stdout.splitlines() if line.startswith("SCORE ")]
    scores = {(query_id, passage_id): float(score) for _, query_id, passage_id, score in lines}
    local = Scorer.load(student_folder, precision="fp32").score(
        [pair["query"] for pair in pairs], [pair["passage"] for pair in pairs]
    )
    assert [scores[pair["query_id"], pair["passage_id"]] for pair in pairs] == pytest.approx(local.tolist(), abs=1e-5)
    told = (
        done.stdout
        + done.stderr
        + "".join(path.read_text() for path in (tmp_path / "events").rglob("*") if path.is_file())
    )
    assert "RUN " in told
    assert SECRET not in told
    assert KEY not in told
