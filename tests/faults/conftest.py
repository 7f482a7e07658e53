"""A fixture that starts drivers, and lets none outlive its test."""

from collections.abc import Callable, Iterator

import pytest

from tests.faults.driver import Driver


@pytest.fixture
def start_driver(spark, tmp_path) -> Iterator[Callable[..., Driver]]:
    """Starts `mkdm score`, or another job, with the given flags and Spark settings as a process."""
    drivers = []

    def start(flags: dict, conf: dict[str, str] | None = None, job: str = "score") -> Driver:
        drivers.append(Driver(spark, tmp_path / f"driver-{len(drivers)}", flags, conf, job))
        return drivers[-1]

    yield start
    for driver in drivers:
        driver.end()
