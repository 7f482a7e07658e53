"""What a driver asks about models before it starts a task; needs no torch."""

from pathlib import Path

from pyspark.sql.utils import is_remote

from mkdm.model import Export, Prompting, Teacher, check_max_length, is_uri, pinned_models, read_zoo

__all__ = ["Export", "Prompting", "Teacher", "check_max_length", "is_uri", "pinned_models", "read_zoo", "seen_by_tasks"]


def seen_by_tasks(folders: str) -> str:
    """Model folders, joined by commas, as tasks find them: over Spark Connect these run in another folder than this."""
    if not is_remote():
        return folders
    return ",".join(str(Path(one).resolve()) if Path(one).is_dir() else one for one in folders.split(","))
