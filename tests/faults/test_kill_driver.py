"""Drivers that are killed -9 at random points and started again: the run ends as if nothing had happened to it."""

import random
import shutil
import time
from pathlib import Path

import pytest

from jobs.engine import Warehouse
from jobs.score import ScoreConfig, run
from tests.faults.driver import commits, wait_for_commits
from tests.faults.outcome import Outcome, outcome

CHUNKS = 3
COMMITS = 12
"""Of a run of three chunks without rejects: started, laid out; per chunk staged, scores, done; complete."""


@pytest.fixture(scope="module")
def settings(student_folder) -> dict:
    """What all runs here have in common."""
    return {"model": student_folder, "precision": "fp32", "chunks": CHUNKS}


@pytest.fixture(scope="module")
def undisturbed(spark, tmp_path_factory, tables, settings) -> Outcome:
    """What a run of three chunks writes when nothing happens to it."""
    root = shutil.copytree(tables, tmp_path_factory.mktemp("undisturbed") / "warehouse")
    run(spark, ScoreConfig(warehouse=str(root), **settings))
    return outcome(Warehouse(spark, str(root)))


def kill_at_random(driver, root: str, rng: random.Random, first: int, last: int, with_jvm: bool) -> int:
    """Kill a driver some commits, between `first` and `last`, and a fraction of a second from here.

    Returns:
        the commits that are there when it is dead; its JVM may add one as long as it lives.
    """
    wait_for_commits(driver, root, commits(root) + rng.randint(first, last))
    time.sleep(rng.uniform(0, 0.4))  # the point itself, not a wait for something
    driver.kill(with_jvm)
    return commits(root)


def finish(spark, warehouse: Warehouse, settings: dict, undisturbed: Outcome) -> None:
    """Let the same run go on here; it ends with the rows of the undisturbed run."""
    report = run(spark, ScoreConfig(warehouse=warehouse.root, **settings))
    assert (report.totals.rows_read, report.run.chunks) == (300, CHUNKS)
    assert outcome(warehouse) == undisturbed


@pytest.mark.slow
def test_driver_killed_alone_and_with_its_jvm(spark, warehouse, settings, undisturbed, start_driver):
    """Its second JVM starts while the first may still be about, since Python alone was killed."""
    rng = random.Random(3)
    before = commits(warehouse.root)
    points = []
    for with_jvm in (False, True):
        driver = start_driver({"warehouse": warehouse.root, "driver_memory": "1g", **settings})
        points.append(kill_at_random(driver, warehouse.root, rng, 1, 3, with_jvm) - before)
    assert points == sorted(set(points)), "each driver got further than the one before"
    assert all(0 < point < COMMITS for point in points), points
    finish(spark, warehouse, settings, undisturbed)


@pytest.fixture(scope="module")
def points() -> set[int]:
    """The numbers of commits at which drivers were killed."""
    return set()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_driver_killed_at_one_of_twenty_points(spark, warehouse, settings, undisturbed, start_driver, points, seed):
    rng = random.Random(seed)
    before = commits(warehouse.root)
    driver = start_driver({"warehouse": warehouse.root, "driver_memory": "1g", **settings})
    points.add(kill_at_random(driver, warehouse.root, rng, 0, COMMITS - 2, rng.random() < 0.5) - before)
    finish(spark, warehouse, settings, undisturbed)
    if seed == 19:
        assert len(points & set(range(1, COMMITS))) > 4, points


@pytest.mark.slow
def test_two_drivers_at_once(warehouse, settings, undisturbed, start_driver):
    flags = {"warehouse": warehouse.root, "driver_memory": "1g", **settings}
    drivers = [start_driver(flags), start_driver(flags)]
    for driver in drivers:
        assert "rows read         300\n" in driver.wait()
    assert outcome(warehouse) == undisturbed
    assert not list(Path(warehouse.root).glob("staging_*"))
