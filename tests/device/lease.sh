#!/bin/bash
# What a GPU lent for some minutes is used for: see README.md beside this file.
#   tests/device/lease.sh DATA WEIGHTS WORK OUT [--seconds 560] [--from DIR]
set -u
cd "$(dirname "$0")/../.."
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=true
data=$1 weights=$2 work=$3 out=$4
shift 4
mkdir -p "$work" "$out"
exec "${PYTHON:-python3}" tests/device/lease.py --data "$data" --weights "$weights" --work "$work" --out "$out" "$@"
