#!/usr/bin/env bash
# Makes the wheel for serverless compute: without Spark and Delta Lake, which are its environment's own and must stay, and
# without torch, for which a UDF there has no room. From the checkout: cluster/databricks/wheel.sh FOLDER
set -euo pipefail

out="${1:?name the folder for the wheel}"
python="${PYTHON:-python3}"
here=$(cd "$(dirname "$0")/../.." && pwd)
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT

tar -C "$here" --exclude=__pycache__ -cf - cluster jobs mkdm udfs setup.cfg pyproject.toml README.md LICENSE \
    | tar -C "$copy" -xf -
# Of what the package needs alone: the lines of its extras stay as they are.
sed -i '/^install_requires/,/^\[/{/^    \(pyspark\|delta-spark\|torch\)>/d}' "$copy/setup.cfg"
"$python" -m pip wheel --quiet --no-deps --disable-pip-version-check --wheel-dir "$out" "$copy"
