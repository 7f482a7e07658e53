"""Settles a run's precision in a task of the cluster: what counts is the executors' machine, not the driver's."""

from pyspark import TaskContext
from pyspark.sql import SparkSession

from udfs.asking import ask_a_task
from udfs.scoring import ScoringSettings, show_own_gpu
from udfs.shipping import receive, ship


def untimed(settings: ScoringSettings) -> str | None:
    """The most exact way to run a model, which every machine has; None for one with IR files, or of another backend."""
    if settings.export_version is not None or settings.backend not in ("auto", "torch"):
        return None
    return "+".join(["torch:fp32"] * len(settings.model.split(",")))


def settle_in_a_task(spark: SparkSession, settings: ScoringSettings) -> tuple[str, str]:
    """Time the precisions that `auto` may take for a model on one executor; see `mkdm.scoring.settle`.

    Returns:
        What it was settled to, and a line that tells how.

    Raises:
        ModelError: the model does not load there, or has no file that may be run.
    """
    models = ship(spark, settings.model)

    def ask() -> list[str]:
        from mkdm.scoring import settle

        receive(models)
        context = TaskContext.get()
        if context is not None:
            show_own_gpu(context)
        settled = settle(
            models,
            settings.backend,
            settings.max_length,
            settings.token_budget,
            threads=None if context is None else context.cpus(),
            prompting=settings.prompting,
        )
        return [settled.runs_as, str(settled)]

    runs_as, told = ask_a_task(spark, ask)
    return runs_as, told
