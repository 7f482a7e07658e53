#!/usr/bin/env bash
# Prints the GPUs of this machine or container as the JSON that Spark expects of a discovery script.
# UUIDs, not numbers: CUDA counts by speed and nvidia-smi by bus, so that number 1 may be two different GPUs.
set -euo pipefail

if ! uuids=$(nvidia-smi --query-gpu=uuid --format=csv,noheader); then
    echo "gpus.sh: nvidia-smi is missing or failed: this machine has no GPU that a task could use" >&2
    exit 1
fi

addresses=""
while read -r uuid; do
    [[ -z $uuid ]] || addresses+="${addresses:+, }\"$uuid\""
done <<< "$uuids"
echo "{\"name\": \"gpu\", \"addresses\": [$addresses]}"
