"""A Python without packages, and commands that see nothing else: what an executor of a user's cluster has."""

import subprocess
import sys
from pathlib import Path


def bare_python(folder: Path) -> str:
    """A PATH whose python3.11 is a fresh virtual environment without packages; made in `folder`."""
    base = getattr(sys, "_base_executable", sys.executable)
    subprocess.run([base, "-m", "venv", "--without-pip", folder / "bare"], check=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    if not (folder / "bare" / "bin" / version).exists():
        (folder / "bare" / "bin" / version).symlink_to("python")
    return f"{folder / 'bare' / 'bin'}:/usr/bin:/bin"


def run_bare(command: list[str], folder: Path, path: str) -> subprocess.CompletedProcess:
    """Run a command in `folder` with that PATH and no other variable but HOME."""
    env = {"PATH": path, "HOME": str(folder)}
    return subprocess.run(
        ["/bin/sh", "-c", '"$@"', "sh", *command], cwd=folder, env=env, capture_output=True, text=True, check=False
    )
