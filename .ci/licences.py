"""Writes the table of licences of all packages in constraints.txt, as their installed metadata tell them.

Run it in the environment with: python .ci/licences.py > .ci/LICENSES-third-party.md
"""

import re
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
JARS = {
    "io.delta:delta-spark_2.13": "Apache-2.0",
    "io.delta:delta-storage": "Apache-2.0",
    "org.antlr:antlr4-runtime": "BSD-3-Clause",
}
"""What Spark fetches besides: Delta Lake's JARs. Spark's own JARs come in pyspark, with their licences beside them."""
READ_BY_HAND = {"cuda-toolkit": "NVIDIA Proprietary Software", "huey": "MIT", "skops": "MIT"}
"""Packages whose metadata tell no licence. cuda-toolkit has no file but metadata: it asks for NVIDIA's own packages."""
_CLASSIFIER = "License :: "


def pinned(constraints: str) -> list[tuple[str, str]]:
    """Names and versions of a constraints file."""
    return re.findall(r"^([A-Za-z0-9._-]+)==(\S+)$", constraints, re.MULTILINE)


def licence(package: Distribution) -> str:
    """The licence of a package, on one line; empty where its metadata tell none."""
    fields = package.metadata
    told = fields.get("License-Expression") or ""
    if told:
        return told
    classifiers = [one.split(" :: ")[-1] for one in fields.get_all("Classifier") or [] if one.startswith(_CLASSIFIER)]
    named = [one for one in classifiers if one != "OSI Approved"]
    text = (fields.get("License") or "").strip()
    text = "Apache-2.0" if text.endswith("apache.org/licenses/LICENSE-2.0") else text
    short = text if text and "\n" not in text and len(text) <= 60 and text.upper() != "UNKNOWN" else ""
    return short or " AND ".join(dict.fromkeys(named)) or READ_BY_HAND.get(fields["Name"].lower(), "")


def table(constraints: str) -> list[tuple[str, str, str]]:
    """Name, version and licence of each package; the licence is empty where none is told or it is not installed."""
    rows = []
    for name, version in pinned(constraints):
        try:
            rows.append((name, version, licence(distribution(name))))
        except PackageNotFoundError:
            rows.append((name, version, READ_BY_HAND.get(name.lower(), "")))
    return rows


def main() -> None:
    """Print the table."""
    print("# Licences of what mkdm depends on\n")
    print("Made by `.ci/licences.py` from the metadata of the installed packages. The project itself is Apache-2.0.\n")
    print("| package | version | licence |\n|---|---|---|")
    for name, version, told in table((ROOT / "constraints.txt").read_text()):
        print(f"| {name} | {version} | {told.replace('|', '/')} |")
    for name, told in JARS.items():
        print(f"| {name} (JAR) | as delta-spark | {told} |")


if __name__ == "__main__":
    main()
