"""Whatever Spark, Delta Lake or Hadoop raises, a job ends with one line that says what to do, and exit code 2."""

import re
from importlib import import_module
from pathlib import Path

import pytest
from py4j.protocol import Py4JError
from pyspark.errors import PySparkException
from pyspark.sql import functions as F
from query_logs import sample_log

from cluster.connect import is_connect
from jobs.engine.command import run_job
from jobs.engine.faults import one_line, told
from mkdm.errors import ModelError

ON_PAIRS = ("score", "label", "evaluate", "export_training_set", "export_model")
"""Jobs that read pairs."""
GOLDEN = "query_id string, passage_id string, golden_label int"
EVERY = (*ON_PAIRS, "build_pairs", "run", "rank", "runs", "maintain")
"""Jobs that read tables of a warehouse with Spark."""


def slow_but(few: tuple[str, ...], jobs: tuple[str, ...]) -> list[object]:
    """Those jobs, a few of them by default: one mechanism stands behind all."""
    return [job if job in few else pytest.param(job, marks=pytest.mark.slow) for job in jobs]


def flags(job: str, model: str, zoo: str) -> list[str]:
    """What a job needs to be told besides places."""
    return {
        "score": ["--model", model],
        "run": ["--model", model],
        "label": ["--zoo", zoo],
        "evaluate": ["--model", model],
        "export_training_set": ["--tokenizer", model, "--max-length", "64"],
        "export_model": ["--model", model],
        "build_pairs": ["--tokenizer", model],
    }.get(job, [])


@pytest.fixture(scope="session")
def zoo(tmp_path_factory, student_folder) -> str:
    path = tmp_path_factory.mktemp("zoo") / "zoo.yaml"
    path.write_text(f"teachers:\n  - {{id: a, model: {student_folder}}}\n")
    return str(path)


@pytest.fixture
def line(capsys, student_folder, zoo):
    """Run a job that must fail; the one line that it says."""

    def run(job: str, *places: str) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            run_job(import_module(f"jobs.{job}").main, [*flags(job, student_folder, zoo), *places])
        err = capsys.readouterr().err
        lines = [line for line in err.splitlines() if line.startswith("error: ")]
        assert end.value.code == 2, err
        assert len(lines) == 1, err
        assert "Traceback" not in err
        assert err.splitlines()[-1] == lines[0], err
        return lines[0]

    return run


@pytest.fixture(scope="module")
def foreign(spark, sample_pairs, tmp_path_factory):
    """A view, and a table of Parquet, in the catalog."""
    rows = spark.createDataFrame(sample_pairs[:5])
    folder = str(tmp_path_factory.mktemp("foreign") / "of_parquet")
    rows.write.format("parquet").option("path", folder).saveAsTable("of_parquet")
    spark.sql("CREATE OR REPLACE VIEW a_view AS SELECT * FROM of_parquet")
    yield
    spark.sql("DROP VIEW a_view")
    spark.sql("DROP TABLE of_parquet")


@pytest.mark.parametrize("job", slow_but(("score", "evaluate"), ON_PAIRS))
@pytest.mark.parametrize(
    ("name", "over_connect"),
    [
        ("a_view", "`a_view` is a view. SQLSTATE: 42809; line 1 pos 0: it is a view: give a Delta table"),
        pytest.param("of_parquet", "it is a table of another format: give a Delta table", marks=pytest.mark.slow),
    ],
)
def test_pairs_that_are_no_delta_table(job, name, over_connect, spark, foreign, warehouse, line):
    classic = "is not a Delta table: it is a view, or a table of another format"
    said = line(job, "--warehouse", warehouse.root, "--pairs", f"default.{name}")
    assert (over_connect if is_connect(spark) else classic) in said


@pytest.mark.parametrize("name", ["queries", "documents", "query_documents"])
def test_inputs_of_a_build_that_are_no_delta_table(name, spark, foreign, warehouse, line):
    sample_log(4, 2).write(spark, warehouse)
    said = line("build_pairs", "--warehouse", warehouse.root, f"--{name.replace('_', '-')}", "default.a_view")
    assert ("`a_view` is a view" if is_connect(spark) else "`a_view` is not a Delta table: it is a view") in said


@pytest.mark.parametrize("job", EVERY)
def test_warehouse_of_an_unknown_scheme(job, spark, line):
    said = line(job, "--warehouse", "nope://bucket/qa")
    by_spark, by_fsspec = 'No FileSystem for scheme "nope"', "Protocol not known: nope"
    asked_first = by_fsspec if is_connect(spark) and by_fsspec in said else by_spark
    assert f"{asked_first}: give a folder, or a URI" in said


@pytest.mark.parametrize("job", slow_but(("score", "build_pairs", "maintain"), EVERY))
def test_warehouse_whose_tables_have_damaged_logs(job, spark, warehouse, line):
    if job in ("build_pairs", "run"):
        sample_log(4, 2).write(spark, warehouse)
    warehouse.table("golden_labels").overwrite(spark.createDataFrame([("q", "p", 1)], GOLDEN))
    for log in Path(warehouse.root).glob("*/_delta_log/*.json"):
        log.write_text("{nonsense")
        log.with_name(f".{log.name}.crc").unlink()
    assert "the log of the Delta table is damaged" in line(job, "--warehouse", warehouse.root)


@pytest.mark.parametrize("job", ["score", "label"])
def test_warehouse_that_cannot_be_written(job, warehouse, tmp_path, line):
    (tmp_path / "file").write_text("")
    pairs = warehouse.table("pairs").location
    said = line(job, "--warehouse", str(tmp_path / "file" / "below"), "--pairs", pairs)
    assert "file/below" in said
    assert "the place cannot be written: give another --warehouse" in said


@pytest.mark.parametrize("job", ON_PAIRS)
def test_file_that_is_no_parquet_file(job, warehouse, tmp_path, line):
    (tmp_path / "mine.parquet").write_bytes(b"query_id,passage_id")
    said = line(job, "--warehouse", warehouse.root, "--pairs", str(tmp_path / "mine.parquet"))
    assert "mine.parquet" in said


def test_data_file_of_the_pairs_that_is_gone(warehouse, line):
    next(Path(warehouse.root).glob("pairs/*.parquet")).unlink()
    said = line("score", "--warehouse", warehouse.root)
    assert re.search(r"pairs/part-.*gone.*read a newer version|pairs/part-.*does not exist", said)
    run = warehouse.table("runs").read().orderBy(F.desc("started_at")).first()
    assert run.state == "failed"


def test_error_of_our_own_in_a_python_worker_comes_back_as_it_was(spark):
    def fail(batches):
        raise ModelError("no weights in DIR: copy them")
        yield from batches

    @one_line
    def job():
        spark.range(1).mapInPandas(fail, "id long").collect()

    with pytest.raises(ModelError, match=r"^no weights in DIR: copy them$"):
        job()


def test_what_is_not_known_keeps_its_sentence(spark):
    with pytest.raises(PySparkException) as fault:
        spark.sql("SELECT no_such_column FROM range(1)").collect()
    assert re.fullmatch(r"A column.* with name `no_such_column` cannot be resolved.*", str(told(fault.value)))
    assert str(told(Py4JError("the gateway is gone"))) == "the gateway is gone"
