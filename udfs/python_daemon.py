"""PySpark's daemon of Python workers, made ready before it forks them, so that between two tasks little is left to do.

Before each task PySpark asks Python to look for new modules (`importlib.invalidate_caches`), by which CPython up to
3.12 reads the lists of files of pyspark.zip and of the JARs on a worker's path anew, once for each of their folders.
After each it collects garbage, and so looks at all that was imported.
"""

import gc
from zipimport import zipimporter

import pandas  # noqa: F401 - once for all workers, which then share its memory
import pyarrow  # noqa: F401
from pyspark.daemon import manager


def _keep(finder: zipimporter) -> None:
    """Files that a session has given out stay as they are: so does what was read of them."""


if __name__ == "__main__":
    zipimporter.invalidate_caches = _keep  # type: ignore[method-assign, assignment]
    gc.freeze()
    manager()
