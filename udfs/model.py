"""What a driver asks about models before it starts a task; needs no torch."""

from typing import NamedTuple

from mkdm.model import (
    Export,
    Teacher,
    check_backend,
    check_fitness,
    check_max_length,
    model_folders,
    models_version,
    read_zoo,
)

__all__ = ["CheckedModel", "Export", "Teacher", "check_max_length", "check_model", "read_zoo"]


class CheckedModel(NamedTuple):
    """What every executor must find at a model's folder.

    Attributes:
        version: the content hash of the model, or of an ensemble.
        export: what stands for the IR files that may be run, or None where none may.
    """

    version: str
    export: str | None

    @property
    def settings(self) -> dict[str, str]:
        """What of it belongs to a run's fingerprint besides the version."""
        return {} if self.export is None else {"export": self.export}


def check_model(models: str, backend: str, precision: str, max_length: int | None) -> CheckedModel:
    """Check that models can be run as wanted.

    Raises:
        ModelError: a folder is missing, incomplete or changed, is no model that scores pairs (see `check_fitness`), or
            lacks the IR file that is asked for.
        ConfigError: a backend has not that precision, or a model does not take that many tokens.
    """
    version = models_version(models)
    for folder in model_folders(models):
        check_fitness(folder)
    check_max_length(models, max_length)
    return CheckedModel(version, check_backend(models, backend, precision))
