"""Writes requirements.lock: the versions of constraints.txt with the sha256 of each file that pip takes here.

pip itself resolves the files, so that its own settings of index and proxy hold; it downloads none of them. No address
of an index goes into the lock. A line has the files of the platforms on which it was made: on another one, run this
there with --keep, which adds that platform's hashes. Run it with: python .ci/lock.py
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"
HEAD = """\
# The versions of constraints.txt with their sha256, made by .ci/lock.py on Linux, x86-64, Python 3.11. To install:
#   pip install --require-hashes --no-deps --requirement requirements.lock
#   pip install --no-deps --editable .
"""
_LINE = re.compile(r"^(\S+)==(\S+?) (--hash.*)$", re.MULTILINE)
_NAME = re.compile(r"[-_.]+")


def normalised(name: str) -> str:
    """A package's name as all of its spellings have it in common."""
    return _NAME.sub("-", name).lower()


def read(text: str) -> dict[tuple[str, str], set[str]]:
    """By name and version, the sha256 that a lock accepts."""
    joined = text.replace(" \\\n    ", " ")
    return {
        (normalised(name), version): set(re.findall(r"--hash=sha256:([0-9a-f]{64})", hashes))
        for name, version, hashes in _LINE.findall(joined)
    }


def resolved(constraints: Path) -> dict[tuple[str, str], set[str]]:
    """By name and version, the sha256 of the file that pip would install here."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--dry-run"]
        command += ["--ignore-installed", "--no-deps", f"--report={report}", f"--requirement={constraints}"]
        subprocess.run(command, check=True)
        found = json.loads(report.read_text())["install"]
    return {
        (normalised(one["metadata"]["name"]), one["metadata"]["version"]): {
            one["download_info"]["archive_info"]["hashes"]["sha256"]
        }
        for one in found
    }


def main() -> None:
    """Write the lock."""
    parser = argparse.ArgumentParser(description="Write requirements.lock from constraints.txt.")
    parser.add_argument("--keep", action="store_true", help="keep the hashes that the lock has of these versions")
    keep = read(LOCK.read_text()) if parser.parse_args().keep else {}
    found = {key: hashes | keep.get(key, set()) for key, hashes in resolved(ROOT / "constraints.txt").items()}
    lines = [
        f"{name}=={version} " + " ".join(f"\\\n    --hash=sha256:{one}" for one in sorted(hashes))
        for (name, version), hashes in sorted(found.items())
    ]
    LOCK.write_text(HEAD + "\n".join(lines) + "\n")
    print(f"{LOCK.name}: {len(found)} packages, {sum(map(len, found.values()))} hashes")


if __name__ == "__main__":
    main()
