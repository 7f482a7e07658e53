"""The key-value view of the ranking: equal to the table at each version, over changes, flips, kills and VACUUM."""

import random
import sqlite3
import subprocess
import sys
import time
from contextlib import closing

import pytest
from delta_sql import vacuum_all
from deltalake import DeltaTable as Reader

from jobs.follow import RANKED, FollowConfig, View
from mkdm.errors import ConfigError, InputError

KEYS = ("query_id", "rank")


def ranking(spark, queries: dict[str, list[str]], run: str):
    rows = [(q, r, p, 1 / (r + len(p)), "m" * 16, run) for q, found in queries.items() for r, p in enumerate(found, 1)]
    types = "query_id string, rank int, passage_id string, score float, model_version string, run_id string"
    return spark.createDataFrame(rows, types)


def table_rows(location: str, version: int | None = None) -> list[tuple]:
    rows = Reader(location, version=version).to_pandas()[list(RANKED)]
    return sorted(map(tuple, rows.itertuples(index=False)))


def view_rows(path) -> tuple[int, list[tuple]]:
    """The version and the rows, as one reader sees them at one time."""
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("BEGIN")
        version = database.execute("SELECT version FROM applied").fetchone()[0]
        return version, sorted(database.execute(f"SELECT {', '.join(RANKED)} FROM ranked"))


@pytest.fixture
def ranked(spark, warehouse):
    table = warehouse.table("ranked_passages")  # empty, at version 0 or after the checks were added
    table.overwrite(ranking(spark, {"q1": ["a", "b", "c"], "q2": ["d"]}, "run-1"))
    return table


def followed(view: View, location: str) -> list[str]:
    return [applied.how for applied in view.follow(location)]


def test_each_version_becomes_the_view_s(spark, ranked, tmp_path):
    path, location = tmp_path / "view.sqlite", ranked.location
    with closing(View(str(path))) as view:
        assert followed(view, location) == ["whole"]
        assert followed(view, location) == []
        ranked.merge_to(ranking(spark, {"q1": ["b", "a"], "q2": ["d"], "q3": ["e", "f"]}, "run-1"), KEYS)
        ranked.overwrite(ranking(spark, {"q1": ["z"], "q9": ["y", "x"]}, "run-2"))
        found = list(view.follow(location))
        assert [applied.how for applied in found] == ["changes", "changes"]
        assert all(0 <= applied.lag < 600 and applied.rows for applied in found)
        assert view.best("q9") == [("y", pytest.approx(1 / 2)), ("x", pytest.approx(1 / 3))]
        assert view.best("nobody") == []
    version, rows = view_rows(path)
    assert (version, rows) == (Reader(location).version(), table_rows(location))


def test_what_vacuum_took_away_is_read_whole(spark, ranked, tmp_path):
    location = ranked.location
    with closing(View(str(tmp_path / "view.sqlite"))) as view:
        followed(view, location)
        for run in range(2):
            ranked.overwrite(ranking(spark, {"q1": [f"p{run}"]}, f"run-{run}"))
        vacuum_all(ranked)
        assert followed(view, location) == ["whole"]
        assert view_rows(tmp_path / "view.sqlite")[1] == table_rows(location)


def test_another_table_in_its_place_is_read_whole(spark, ranked, tmp_path):
    with closing(View(str(tmp_path / "view.sqlite"))) as view:
        followed(view, ranked.location)
        ranked.drop()
        ranked.overwrite(ranking(spark, {"q5": ["n"]}, "run-7"))
        assert followed(view, ranked.location) == ["whole"]
        assert view.best("q1") == []


def test_killed_at_random_the_view_is_always_one_version_and_at_last_the_newest(spark, ranked, tmp_path):
    path, location, chance = tmp_path / "view.sqlite", ranked.location, random.Random(0)
    command = [
        sys.executable,
        "-m",
        "jobs.follow",
        "--view",
        str(path),
        "--ranked-passages",
        location,
        "--every",
        "0.01",
    ]
    with closing(View(str(path))) as view:
        followed(view, location)
    seen = set()
    follower = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for run in range(6):
        queries = {f"q{i}": [f"p{run}-{i}-{rank}" for rank in range(chance.randint(1, 3))] for i in range(40)}
        ranked.overwrite(ranking(spark, queries, f"run-{run}"))
        time.sleep(chance.uniform(0, 1.5))
        follower.kill()
        follower.wait()
        version, rows = view_rows(path)
        assert rows == table_rows(location, version)
        seen.add(version)
        follower = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    follower.kill()
    follower.wait()
    with closing(View(str(path))) as view:
        assert "whole" not in followed(view, location)
    assert view_rows(path) == (Reader(location).version(), table_rows(location))


def test_one_look_from_the_command_line(ranked, warehouse, tmp_path):
    command = [sys.executable, "-m", "jobs.follow", "--view", str(tmp_path / "v"), "--warehouse", warehouse.root]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"version {Reader(ranked.location).version()}: whole, 4 rows in ")
    assert "has version" in done.stderr


def test_what_cannot_be_followed(warehouse, tmp_path):
    with pytest.raises(ConfigError, match=r"--every is 0"):
        FollowConfig(str(tmp_path / "v"), every=0)
    (tmp_path / "text").write_text("no database, but more than a hundred letters " * 9)
    with pytest.raises(InputError, match=r"text cannot be used as a view"):
        View(str(tmp_path / "text"))
    with closing(View(str(tmp_path / "v"))) as view:
        with pytest.raises(InputError, match=r"no Delta table at .*nowhere: publish a ranking with mkdm rank"):
            followed(view, str(tmp_path / "nowhere"))
        with pytest.raises(InputError, match=r"lacks the column model_version: it is no ranked_passages"):
            followed(view, warehouse.table("pairs").location)
