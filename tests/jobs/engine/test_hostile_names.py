"""Names of folders, tables and runs are names, whatever is in them: nothing of them is SQL, a shell's or a way out."""

import shutil

import pytest

from jobs.engine import Table, Warehouse
from jobs.engine.creation import create
from jobs.engine.schemas import TABLES
from jobs.rank import RankConfig
from jobs.rank import run as rank
from jobs.runs import RunsConfig
from jobs.runs import run as runs
from jobs.score import ScoreConfig, run
from mkdm.errors import ConfigError

PAIRS = "query_id string, passage_id string, query string, passage string"
FOLDERS = [
    "with space",
    'it\'s "quoted"',
    "$(touch hacked); touch hacked",
    "x'); DROP TABLE scores; --",
    "größe 検索 🔎",
    "a.b.c, d\\e",
    "50% & [a-z]{1} #?*",
]


def kept(table: Table) -> dict[str, object]:
    """What Delta keeps of a table and a round trip through all that builds SQL of its name."""
    return {"rows": table.read().count(), "properties": table.properties().get("x.y")}


@pytest.mark.parametrize("name", FOLDERS)
def test_folders_of_any_name(spark, tmp_path, sample_pairs, name):
    warehouse = Warehouse(spark, f"{tmp_path}/{name}")
    scores = warehouse.output("scores")
    rows = spark.createDataFrame([("q", "p", 0.5)], "query_id string, passage_id string, score float")
    scores.append(rows, "one")
    scores.set_properties({"x.y": "it's; -- \\ `"})
    assert kept(scores) == {"rows": 1, "properties": "it's; -- \\ `"}
    version = scores.committed("one")
    assert scores.changes(version, version).count() == 1
    assert (tmp_path / name / "scores" / "_delta_log").is_dir()
    assert [path.name for path in tmp_path.iterdir()] == [name], "and nothing beside it"


@pytest.mark.slow
def test_job_over_hostile_folders_from_end_to_end(spark, tmp_path, student_folder, sample_pairs):
    root = tmp_path / "it's $(touch hacked); 検索"
    model = shutil.copytree(student_folder, tmp_path / 'a model\'s "folder"; $(touch hacked)')
    warehouse = Warehouse(spark, f"{root}/../{root.name}")  # .. is the user's own to write
    warehouse.table("pairs").overwrite(spark.createDataFrame(sample_pairs[:20], PAIRS))
    config = ScoreConfig(model=str(model), warehouse=warehouse.root, precision="fp32", chunks=2)
    report = run(spark, config)
    assert report.totals.rows_written == 20
    assert rank(spark, RankConfig(warehouse=warehouse.root)).rows == 20
    page = tmp_path / "page $(touch hacked) '\".html"
    assert "PSI" not in runs(spark, RunsConfig(warehouse=warehouse.root, report=str(page)))
    assert page.exists()
    assert sorted(path.name for path in root.iterdir()) == [
        "pairs",
        "ranked_passages",
        "rejected_pairs",
        "runs",
        "scores",
    ], "no staging left, nothing else made"
    assert not list(tmp_path.rglob("hacked"))


def test_names_in_a_catalog_may_be_quoted(spark):
    spark.sql("CREATE SCHEMA IF NOT EXISTS victims")
    try:
        table = Warehouse(spark, "spark_catalog.`victims`").table("scores")
        assert table.in_catalog
        assert table.sql_name == "`spark_catalog`.`victims`.`scores`"
        assert table.sibling("pairs").location == "spark_catalog.`victims`.pairs"
        assert not table.exists()
        create(table, TABLES["scores"])
        rows = spark.createDataFrame([("q", "p", 0.5)], "query_id string, passage_id string, score float")
        table.append(rows, "one")
        assert table.changes(table.committed("one"), table.latest_version()).count() == 1
        assert table.read(table.latest_version()).count() == 1
        for hostile in ("`x; DROP SCHEMA victims CASCADE`", "`x'; --`", "`x``; DROP SCHEMA victims CASCADE; --`"):
            other = Warehouse(spark, f"spark_catalog.{hostile}").table("scores")
            assert other.sql_name == f"`spark_catalog`.{hostile}.`scores`"
            with pytest.raises(ConfigError, match="cannot create the table"):
                create(other, TABLES["scores"])
        assert table.read().count() == 1, "the victim lives"
        table.drop()
        assert not table.exists()
    finally:
        spark.sql("DROP SCHEMA victims CASCADE")


@pytest.mark.parametrize(
    "name", ["main.qa; DROP SCHEMA victims", "main.qa.scores--", "main.qa\n", "a.b.c.d", "m-n.qa.x"]
)
def test_what_is_no_name_is_never_taken_for_one(spark, name):
    assert not Table(spark, name).in_catalog
    assert Table(spark, f"/x/{name}").sql_name.startswith("delta.`file:/x/")


@pytest.mark.parametrize(
    "name", ["main.`qa", "main.q`a`.scores", "/folder/`x`/scores", "main.`qa`; DROP SCHEMA victims"]
)
def test_backticks_that_quote_no_name_are_refused(spark, name):
    with pytest.raises(ConfigError, match="is no name in a catalog, and as a folder it has a backtick"):
        Table(spark, name)


@pytest.mark.parametrize(
    "run_id", ["../../up", "a b", "x'; DROP TABLE runs; --", "$(id)", "`id`", "", ".hidden", "größe"]
)
def test_run_ids_are_plain(run_id):
    with pytest.raises(ConfigError, match="--run-id is"):
        ScoreConfig(model="", run_id=run_id)


def test_tables_refuse_credentials_in_their_place(spark):
    for place in ("s3a://key:hush/hush@bucket/qa", "https://a.b/c?sig=hushhush"):
        with pytest.raises(ConfigError, match="has credentials in its URI") as error:
            Warehouse(spark, place).table("scores")
        assert "hush" not in str(error.value)
