"""Registers the student of a run with MLflow."""

from dataclasses import replace
from typing import Any

from mkdm.export import Registration, register
from mkdm.train.config import TrainConfig
from mkdm.train.tracking import numbers

_TOLD: tuple[str, ...] = (
    "encoder",
    "training_set",
    "teachers",
    "alpha",
    "num_layers",
    "separate_layers",
    "stage_one_set",
)
_TOLD = (*_TOLD, "epochs", "batch_size", "learning_rate", "list_weight", "match_weight", "seed")
"""Settings that the card has."""


def registration_of(config: TrainConfig) -> Registration | None:
    """What --register asks for, checked before the training.

    Raises:
        ConfigError: as for `Registration.wanted`.
    """
    return Registration.wanted(config.register, config.register_alias, config.mlflow, config.mlflow_experiment)


def register_student(config: TrainConfig, wanted: Registration, best: dict[str, Any], mlflow_run: str | None) -> str:
    """Register what is in the run's output, in MLflow's run of the training where there is one.

    Args:
        best: the validation figures of the kept checkpoint.

    Returns:
        Its location, models:/NAME/VERSION.
    """
    about = {name: str(getattr(config, name)) for name in _TOLD}
    return register(config.output, replace(wanted, run_id=mlflow_run), numbers(best, "valid "), about)
