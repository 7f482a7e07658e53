"""What Spark has a Python worker do between two tasks, made short: it would take half a second, once a model is there.

On one machine `udfs/python_daemon.py` spares every task most of it; this is for clusters, and for what a model brings.
Before each task pyspark asks Python to look for new modules (`importlib.invalidate_caches`, in
`pyspark/worker_util.py`), by which CPython 3.11 reads the list of all files of pyspark.zip anew: 0.17 s. After each it
collects garbage (`pyspark/daemon.py`), and so looks at every object that torch and transformers have made: 0.24 s.
"""

import gc
import sys
from collections.abc import Iterator
from typing import TypeVar
from zipimport import zipimporter

Item = TypeVar("Item")


def keep_for_good() -> None:
    """Tell the garbage collector that what is loaded by now stays as long as this worker: it is not looked at again."""
    gc.collect()
    gc.freeze()


def one_task(results: Iterator[Item]) -> Iterator[Item]:
    """The results of a task; at its end nothing is left that the start of the next one would read anew.

    What the next task imports finds the list of files of a zip where Python keeps it.
    """
    try:
        yield from results
    finally:
        for path, finder in list(sys.path_importer_cache.items()):
            if isinstance(finder, zipimporter):
                del sys.path_importer_cache[path]
