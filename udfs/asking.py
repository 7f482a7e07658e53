"""Asks in a Spark task what the driver need not know how to find out: executors load tokenizers anyway."""

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pandas as pd
from pyspark.sql import SparkSession

from mkdm.errors import MkdmError, ModelError


def ask_a_task(spark: SparkSession, ask: Callable[[], Any]) -> Any:
    """What `ask` returns in a task, through JSON.

    Raises:
        ModelError: it raised an error of ours; the text is the same.
    """

    def look(batches: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        for batch in batches:
            for _ in range(len(batch)):
                try:
                    found = {"answer": ask()}
                except MkdmError as error:
                    found = {"error": str(error)}
                yield pd.DataFrame({"found": [json.dumps(found)]})

    found = json.loads(spark.range(1, numPartitions=1).mapInPandas(look, "found string").collect()[0]["found"])
    if "error" in found:
        raise ModelError(found["error"])
    return found["answer"]
