#!/usr/bin/env bash
# Runs on every machine of a cluster before Spark starts: installs the engine and what it needs from MKDM_VOLUME and PyPI.
# Spark, Delta Lake, pandas and pyarrow are the runtime's own, and must stay: hence --no-deps, and the list below.
set -euo pipefail

: "${MKDM_VOLUME:?is not set: name the volume with mkdm-*.whl and constraints.txt in spark_env_vars}"
python="${MKDM_PYTHON:-/databricks/python/bin/python}"

wheel=$(find "$MKDM_VOLUME" -maxdepth 1 -name 'mkdm-*.whl' | sort -V | tail -n 1) # the newest
[[ -n $wheel ]] || { echo "init.sh: $MKDM_VOLUME holds no mkdm-*.whl" >&2; exit 1; }

"$python" -m pip install --quiet --no-deps "$wheel"

packages=(bm25s fsspec jinja2 'jsonargparse[signatures]' lxml semantic-text-splitter tqdm transformers)
# A machine with a GPU has a runtime for machine learning, whose torch fits its driver; one from PyPI may ask for a newer one.
if ! command -v nvidia-smi > /dev/null || ! "$python" -c 'import torch' 2> /dev/null; then
    packages+=(torch openvino)
fi

# The versions that were tested together, of these packages alone: the file also pins what the runtime brings.
constraints=$(mktemp)
trap 'rm -f "$constraints"' EXIT
for package in "${packages[@]}"; do
    grep -i "^${package%%[*}==" "$MKDM_VOLUME/constraints.txt"
done > "$constraints"
"$python" -m pip install --quiet --constraint "$constraints" "${packages[@]}"
