"""Runs a job's main: an error that the user can mend is one line and exit code 2."""

from collections.abc import Callable, Sequence

from cluster.errors import ClusterError
from jobs.engine.faults import one_line
from mkdm.config import run_command


def run_job(main: Callable[[Sequence[str] | None], None], argv: Sequence[str] | None = None) -> None:
    """Run `main`; see `mkdm.config.run_command`."""
    run_command(one_line(main), argv, also=(ClusterError,))
