"""What a driver asks about a model before it starts a task; needs no torch."""

from mkdm.model_folder import check_max_length, model_version

__all__ = ["check_max_length", "model_version"]
