"""sentence-transformers' own OpenVINO backend as a peer: `CrossEncoder(backend="openvino")`, in a Python of its own.

optimum-intel, which it needs, wants an older transformers than we do (CONTRIBUTING.md tells the versions). So
`score_apart` runs this file by the Python of another environment, where nothing of ours is imported.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

BATCH_SIZE = 32
WARM_UP = 64
CALIBRATION = "calibration"
"""Beside the plain folder, the folder with a Parquet file of texts that int8 ranges are taken from."""


def score_apart(python: str, folder: str, precision: str, pairs: str, output: Path) -> float:
    """Score the pairs of a Parquet file by the Python of another environment.

    Args:
        output: .npy file for the logits, float32[n, 2 + n_teachers].

    Returns:
        Seconds from texts to logits, loaded and warm.

    Raises:
        RunFailedError: it failed; the text has its last line.
    """
    from mkdm.errors import RunFailedError

    command = [python, __file__, "--model", folder, "--precision", precision, "--pairs", pairs, "--output", str(output)]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    if process.returncode:
        last = (process.stderr.strip().splitlines() or ["no output"])[-1]
        raise RunFailedError(f"CrossEncoder with OpenVINO failed in {python}: {last}")
    return float(json.loads(process.stdout.splitlines()[-1])["seconds"])


def _quantised(folder: str) -> str:
    """The name of the int8 file, made if it is not there, as sentence-transformers' documentation has it."""
    from sentence_transformers import CrossEncoder, export_static_quantized_openvino_model

    name = "openvino_model_qint8_quantized.xml"
    if not Path(folder, "openvino", name).exists():
        model = CrossEncoder(folder, backend="openvino", local_files_only=True)
        export_static_quantized_openvino_model(
            model,
            None,
            folder,
            dataset_name=str(Path(folder).parent / CALIBRATION),
            dataset_config_name="default",
            dataset_split="train",
            column_name="text",
        )
    return name


def main() -> None:
    """Score, write the logits, print the seconds. Imports what the other environment has."""
    parser = argparse.ArgumentParser()
    for name in ("model", "precision", "pairs", "output"):
        parser.add_argument(f"--{name}", required=True)
    config = parser.parse_args()

    import numpy as np
    import pyarrow.parquet as pq
    import torch
    from sentence_transformers import CrossEncoder

    more = {"file_name": _quantised(config.model)} if config.precision == "int8" else {}
    encoder = CrossEncoder(
        config.model, backend="openvino", local_files_only=True, activation_fn=torch.nn.Identity(), model_kwargs=more
    )
    table = pq.read_table(config.pairs)
    pairs = list(zip(table["query"].to_pylist(), table["passage"].to_pylist(), strict=True))
    encoder.predict(pairs[:WARM_UP], batch_size=BATCH_SIZE)
    ready = time.perf_counter()
    logits = encoder.predict(pairs, batch_size=BATCH_SIZE, convert_to_numpy=True)
    seconds = time.perf_counter() - ready
    np.save(config.output, np.asarray(logits, dtype=np.float32).reshape(len(pairs), -1))
    print(json.dumps({"seconds": seconds}))


if __name__ == "__main__":
    sys.path = [path for path in sys.path if Path(path or ".").resolve() != Path(__file__).resolve().parent]
    main()
