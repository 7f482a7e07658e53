"""What comes back of a lease: few files, each small, whole at any moment; and put back where it came from.

`small.tar` has results, logs and kept labels; NAME.tgz.00, .01, … the weights of a run. Of the machine come at most
FILES files below FILE_BYTES each, TOTAL_BYTES together, so that the weights of more than one run need several calls.
"""

import gzip
import hashlib
import json
import tarfile
import zlib
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

FILES, FILE_BYTES, TOTAL_BYTES, SMALL_ROOM = 8, 15_900_000, 66_000_000, 16_000_000
SMALL, PIECES = "small.tar", "pieces.json"
SMALL_FILES = ("*/scores/*", "*/logs/*.log", "*/results.jsonl", "*/runs/*/training_log.jsonl", "kept/*", "*.json")
"""Below the work folder: what there is to tell, and labels."""
_OF_A_RUN = ("*.json", "*.safetensors", "*.txt", "*.jsonl", "training_state/finished.json")


def write_small(work: Path, out: Path) -> None:
    """Write what there is to tell. Where it is too large, scores and then logs are left out."""
    for patterns in (SMALL_FILES, SMALL_FILES[1:], SMALL_FILES[2:]):
        content = _tar(work, [path for pattern in patterns for path in sorted(work.glob(pattern)) if path.is_file()])
        if len(content) <= FILE_BYTES:
            break
    _write(out / SMALL, content)


def finished(work: Path) -> dict[str, Path]:
    """By name, the folders of the runs that are finished."""
    done = [path.parent.parent for path in sorted(work.glob("*/runs/*/training_state/finished.json"))]
    return {path.name: path for path in done}


def packed(work: Path, run: Path) -> Path:
    """The file with the weights of a run, compressed once."""
    file = work / ".packed" / f"{run.name}.tgz"
    if not file.exists():
        paths = dict.fromkeys(path for pattern in _OF_A_RUN for path in sorted(run.glob(pattern)))
        file.parent.mkdir(parents=True, exist_ok=True)
        _write(file, gzip.compress(_tar(work, list(paths)), compresslevel=1, mtime=0))
    return file


def pack(work: Path, out: Path, order: Sequence[str], small: bool = True) -> list[str]:
    """Fill the folder that comes back; what has no room any more is taken out of it. Nothing is ever half there.

    Args:
        order: runs by worth; others stay behind.
        small: whether results and labels come along; without them there is room for one of 12 layers.

    Returns:
        The runs whose weights are there.
    """
    out.mkdir(parents=True, exist_ok=True)
    runs, chosen, waiting = finished(work), list[Path](), list[str]()
    room, files = TOTAL_BYTES - (SMALL_ROOM if small else 0), FILES - small
    for name in [name for name in order if name in runs]:
        file = packed(work, runs[name])
        size, count = file.stat().st_size, -(-file.stat().st_size // FILE_BYTES)
        if size > room or count > files:
            waiting.append(name)
            continue
        chosen.append(file)
        room, files = room - size, files - count
    told = {"weights": [file.stem for file in chosen], "no room for": waiting}
    _write(work / PIECES, (json.dumps(told, indent=1) + "\n").encode())
    kept = {f"{file.name}.{number:02d}" for file in chosen for number in range(-(-file.stat().st_size // FILE_BYTES))}
    for path in [path for path in out.glob("*.tgz.*") if path.name not in kept]:
        path.unlink()
    if small:
        write_small(work, out)
    for file in chosen:
        content = file.read_bytes()
        for number, start in enumerate(range(0, len(content), FILE_BYTES)):
            _write(out / f"{file.name}.{number:02d}", content[start : start + FILE_BYTES])
    return told["weights"]


def restore(given: Path, work: Path) -> list[str]:
    """Put back what came of earlier calls; returns what was there. Runs of which a part is missing are left out."""
    found = []
    if (given / SMALL).exists():
        _untar((given / SMALL).read_bytes(), work)
        found.append(SMALL)
    for first in sorted(given.glob("*.tgz.00")):
        name = first.name.removesuffix(".tgz.00")
        content = b"".join(part.read_bytes() for part in sorted(given.glob(f"{name}.tgz.*")))
        try:
            _untar(gzip.decompress(content), work)
        except (OSError, EOFError, zlib.error, tarfile.TarError):
            continue
        found.append(name)
    return found


def _tar(work: Path, paths: Sequence[Path]) -> bytes:
    buffer = BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path in paths:
            tar.add(path, path.relative_to(work).as_posix(), recursive=False)
    return buffer.getvalue()


def _untar(content: bytes, work: Path) -> None:
    work.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=BytesIO(content)) as tar:
        tar.extractall(work, filter="data")


def _write(path: Path, content: bytes) -> None:
    """Whole at any moment; a file that is the same is left alone."""
    digest = hashlib.sha256(content).digest()
    if path.exists() and hashlib.sha256(path.read_bytes()).digest() == digest:
        return
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(content)
    part.replace(path)
