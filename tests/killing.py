"""Kills what runs in this process at one of its commits, as a driver that dies there."""

from contextlib import contextmanager

from delta.tables import DeltaMergeBuilder
from pyspark.sql.readwriter import DataFrameWriter


class Killed(BaseException):
    """What a run dies of in mid-commit."""


@contextmanager
def killed_at(commit: int | None, monkeypatch):
    """Whatever commits inside dies at that commit: an even number before it is made, an odd one after."""
    count = 0

    def dying(real):
        def commit_or_die(*args, **options):
            nonlocal count
            count += 1
            if commit is not None and count == commit // 2 + 1 and commit % 2 == 0:
                raise Killed
            made = real(*args, **options)
            if commit is not None and count == commit // 2 + 1:
                raise Killed
            return made

        return commit_or_die

    with monkeypatch.context() as patched:
        patched.setattr(DataFrameWriter, "save", dying(DataFrameWriter.save))
        patched.setattr(DeltaMergeBuilder, "execute", dying(DeltaMergeBuilder.execute))
        yield
