"""Runs a command and watches the memory of all its processes: for `mkdm benchmark`."""

import shutil
import subprocess
import time
from dataclasses import dataclass
from threading import Event, Thread

from mkdm.errors import RunFailedError

_POLL = 0.5


@dataclass(frozen=True)
class Finished:
    """A command that ran to its end.

    Attributes:
        output: its stdout.
        seconds: wall time.
        memory_mb: peaks in MB: `python` and `jvm`, of all its processes of either kind together, pages that several
            share counted once (PSS); and `gpu`, by which the first GPU's memory in use grew.
    """

    output: str
    seconds: float
    memory_mb: dict[str, float]


def run_process(command: list[str]) -> Finished:
    """Run a command.

    Raises:
        RunFailedError: it failed; the text has the last line of its stderr.
    """
    started = time.monotonic()
    before = _gpu_mb()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    peaks = {"python": 0.0, "jvm": 0.0, "gpu": 0.0}
    done = Event()

    def watch() -> None:
        while not done.wait(_POLL):
            now = {**_host_mb(process.pid), "gpu": _gpu_mb() - before}
            peaks.update({kind: max(peaks[kind], size) for kind, size in now.items()})

    thread = Thread(target=watch, daemon=True)
    thread.start()
    output, errors = process.communicate()
    done.set()
    thread.join()
    if process.returncode:
        last = (errors.strip().splitlines() or ["it printed nothing"])[-1]
        raise RunFailedError(f"{' '.join(command[1:6])} … exited {process.returncode}: {last}")
    return Finished(output, time.monotonic() - started, peaks)


def _host_mb(pid: int) -> dict[str, float]:
    import psutil  # of the extra bench

    sizes = {"python": 0.0, "jvm": 0.0}
    try:
        root = psutil.Process(pid)
        processes = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return sizes
    for one in processes:
        try:
            kind = "jvm" if one.name() == "java" else "python"
            sizes[kind] += one.memory_full_info().pss / 2**20
        except (psutil.NoSuchProcess, psutil.AccessDenied):  # it ended meanwhile
            continue
    return sizes


def _gpu_mb() -> float:
    if shutil.which("nvidia-smi") is None:
        return 0.0
    command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "--id=0"]
    told = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return float(told) if told.isdigit() else 0.0
