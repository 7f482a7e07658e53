"""The folder of an export beside a model: replaced whole or not at all, with what others put there left as it is."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from mkdm.errors import ModelError
from mkdm.model import IR_RECORD, ExportedModel, own_files, read_export, verify


def foreign_names(folder: str | Path, place: str, ours: Sequence[str]) -> list[str]:
    """Names of what lies in the folder of an export and was not made here.

    Args:
        folder: of the model.
        place: of the export in it.
        ours: names that an export may write.

    Raises:
        ModelError: one of them has a name that an export needs.
    """
    target = Path(folder, place)
    if target.exists() and not target.is_dir():
        raise ModelError(f"{target} is no folder, and was not made by mkdm export-model: move it away")
    names = {path.name for path in target.iterdir()} - own_files(folder, place) if target.exists() else set()
    taken = names & {IR_RECORD, *ours}
    if taken:
        raise ModelError(
            f"{target / min(taken)} was not made by mkdm export-model, which would overwrite it: move it away"
        )
    return sorted(names)


@contextmanager
def replacing(target: Path, keep: Sequence[str]) -> Iterator[Path]:
    """A new folder that takes the place of the target once it is complete; if not, the target stays as it was.

    Args:
        keep: names of files and folders in the target that the new folder gets as well.
    """
    part = target.with_name(f"{target.name}.{uuid4().hex}.part")
    old = part.with_suffix(".old")
    try:
        part.mkdir()
        yield part
        for name in keep:
            one = target / name
            if one.is_dir() and not one.is_symlink():
                shutil.copytree(one, part / name, symlinks=True)
            else:
                shutil.copy2(one, part / name, follow_symlinks=False)
        if target.exists():
            target.rename(old)
        try:
            part.rename(target)
        except OSError:
            if old.exists():
                old.rename(target)
            raise
        shutil.rmtree(old, ignore_errors=True)
    except (OSError, shutil.Error) as error:
        raise ModelError(f"cannot write {target}: {getattr(error, 'strerror', None) or error}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def carry_over(
    folder: str | Path, place: str, part: Path, version: str, tools: dict[str, str], made: set[str]
) -> dict[str, ExportedModel]:
    """Take the files of precisions that were not made now over from an earlier export of the same weights."""
    try:
        earlier = read_export(folder, place)
        if earlier is None or (earlier.model_version, earlier.tools) != (version, tools):
            return {}
        kept = {name: one for name, one in earlier.exported.items() if name not in made}
        for one in kept.values():
            verify(folder, one, place)
            for name in one.sha256:
                shutil.copy2(Path(folder, place, name), part / name)
    except ModelError:  # an export that cannot be used any more
        return {}
    return kept
