"""What a driver asks about a model before it starts a task; needs no torch."""

from mkdm.model_folder import model_version

__all__ = ["model_version"]
