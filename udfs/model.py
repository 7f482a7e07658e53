"""What a driver asks about models before it starts a task; needs no torch."""

from mkdm.model_folder import check_max_length
from mkdm.model_folder import models_version as model_version
from mkdm.zoo import Teacher, read_zoo

__all__ = ["Teacher", "check_max_length", "model_version", "read_zoo"]
