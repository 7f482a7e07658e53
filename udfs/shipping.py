"""Sends the copies of models that a registry or the hub keeps to the executors, which need neither, nor its keys."""

from pathlib import Path
from weakref import WeakKeyDictionary

from pyspark.sql import SparkSession

from mkdm.model import folder_of, is_kept, model_folders, packed, pinned_models, unpack

_SENT: WeakKeyDictionary[SparkSession, set[str]] = WeakKeyDictionary()
"""By session, the names of the files that its executors have."""


def ship(spark: SparkSession, models: str) -> str:
    """Have Spark give each executor the copies of pinned models; those of a plain folder or URI stay where they are.

    Returns:
        The models as executors find them; on the driver's own machine that is its copies.
    """
    kept = [name for name in models.split(",") if is_kept(name)]
    if not kept:
        return models
    if _is_this_machine(spark):
        return ",".join(map(str, model_folders(models)))
    sent = _SENT.setdefault(spark, set())
    for archive in map(packed, kept):
        if archive.name not in sent:
            spark.addArtifacts(str(archive), file=True)
            sent.add(archive.name)
    return models


def shipped(spark: SparkSession, folder: str) -> str:
    """The location of a tokenizer, pinned and sent to the executors where a registry or the hub keeps it.

    Raises:
        ModelError: it cannot be had.
    """
    if not is_kept(folder):
        return folder
    location, _ = pinned_models(folder, lambda copy: None)
    return str(folder_of(location)) if _is_this_machine(spark) else ship(spark, location)


def receive(models: str) -> None:
    """On an executor, keep what `ship` sent of these models, unless this host has it."""
    for name in models.split(","):
        if is_kept(name):
            unpack(name, _sent_file)


def _sent_file(name: str) -> Path:
    from pyspark import SparkFiles

    return Path(SparkFiles.get(name))


def _is_this_machine(spark: SparkSession) -> bool:
    """Whether tasks run in the driver's process: not over Spark Connect, whose server may be anywhere."""
    if ".connect." in type(spark).__module__:
        return False
    master = str(spark.conf.get("spark.master", ""))
    return master == "local" or master.startswith("local[")
