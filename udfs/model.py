"""What a driver asks about models before it starts a task; needs no torch."""

from mkdm.model import Export, Teacher, check_max_length, is_uri, pinned_models, read_zoo

__all__ = ["Export", "Teacher", "check_max_length", "is_uri", "pinned_models", "read_zoo"]
