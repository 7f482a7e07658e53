"""Teachers of each family beside `CrossEncoder.predict`, in one run: pairs per second and how far scores lie apart.

`python tests/scale/teachers.py [--families modernbert,qwen3] [--rows 96] [--rounds 3] [--hidden 384] [--layers 12]`:
random weights, real pairs of the sample, fp32 by torch, in batches of 32 for CrossEncoder. The sides take turns, and of
each the fastest round counts. `qwen3 yes/no` is a reranker that answers in words, by a chat template.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import numpy as np  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402
import torch  # noqa: E402
from sentence_transformers import CrossEncoder  # noqa: E402
from tiny_models import byte_level, wordpiece  # noqa: E402
from tiny_teachers import chat_tokenizer, save_classifier, save_generator  # noqa: E402

from mkdm.model import FAMILIES  # noqa: E402
from mkdm.scoring import Scorer  # noqa: E402

WORDS = "qwen3 yes/no"
CHAT = (
    "{% for one in messages %}{{ '<|im_start|>' + one['role'] + '\n' + one['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{{ '' if 'query' and 'document' }}<|im_start|>assistant\n"
)


def save(family: str, folder: Path, corpus: list[str], shape: dict[str, int]) -> None:
    """A model of that family and shape, with random weights and a tokenizer trained on the corpus."""
    if family == "distilbert":
        shape = {"dim": shape["hidden_size"], "hidden_dim": shape["intermediate_size"], "n_heads": 6} | shape
        shape["n_layers"] = shape["num_hidden_layers"]
    if family == WORDS or FAMILIES[family].kind == "decoder":
        tokenizer, shape = chat_tokenizer(corpus), shape | {"num_key_value_heads": 2, "head_dim": 64}
        if family == WORDS:
            tokenizer.chat_template = CHAT
            save_generator(folder, "qwen3", tokenizer, **shape)
            return
    else:
        tokenizer = (wordpiece if family in ("bert", "deberta-v2", "nomic_bert") else byte_level)(corpus)
    save_classifier(folder, family, tokenizer, **shape)


def main() -> None:
    parser = argparse.ArgumentParser()
    names = [name for name, family in FAMILIES.items() if family.kind != "encoder-decoder" and name != "mobilebert"]
    parser.add_argument("--families", default=",".join([*names, WORDS]))
    for flag, value in (("rows", 96), ("rounds", 3), ("hidden", 384), ("layers", 12), ("threads", 0)):
        parser.add_argument(f"--{flag}", type=int, default=value)
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    rows = pq.read_table(ROOT / "tests/sample/pairs.parquet").to_pylist()
    corpus = [text for row in rows for text in (row["query"], row["passage"])]
    chosen = rows[:: len(rows) // arguments.rows][: arguments.rows]
    queries, passages = [row["query"] for row in chosen], [row["passage"] for row in chosen]
    pairs = list(zip(queries, passages, strict=True))
    shape = {"hidden_size": arguments.hidden, "num_hidden_layers": arguments.layers, "num_attention_heads": 6}
    shape |= {"intermediate_size": 4 * arguments.hidden, "max_position_embeddings": 514}
    print(f"{'family':>20}  CrossEncoder  ours  ratio  largest difference  (pairs/s, {len(pairs)} pairs)")
    for family in arguments.families.split(","):
        with tempfile.TemporaryDirectory() as folder:
            save(family, Path(folder), corpus, shape)
            theirs = CrossEncoder(folder, device=None, local_files_only=True, max_length=512)
            ours = Scorer.load(folder, "torch", "fp32", 512)
            seconds: dict[str, list[float]] = {"theirs": [], "ours": []}
            for _ in range(arguments.rounds):
                began = time.perf_counter()
                expected = theirs.predict(pairs, activation_fn=torch.nn.Sigmoid())
                seconds["theirs"].append(time.perf_counter() - began)
                began = time.perf_counter()
                found = ours.score(queries, passages)
                seconds["ours"].append(time.perf_counter() - began)
            rate = {side: len(pairs) / min(taken) for side, taken in seconds.items()}
            apart = np.abs(found - expected).max()
        ratio = rate["ours"] / rate["theirs"]
        print(f"{family:>20}  {rate['theirs']:12.1f}  {rate['ours']:4.1f}  {ratio:5.2f}  {apart:.0e}", flush=True)


if __name__ == "__main__":
    main()
