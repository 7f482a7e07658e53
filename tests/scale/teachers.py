"""Teachers of each family beside what people would take for them, in one run: pairs per second, and scores apart.

`python tests/scale/teachers.py [--families modernbert,qwen3] [--ways torch:fp32,openvino:int8] [--rows 64]`: random
weights of that shape, real pairs of the sample, none of which is cut. The peer is `CrossEncoder.predict` in its batches
of 32; of `qwen3 yes/no` also, and of MonoT5 alone, plain transformers in fp32 as the model's card says. The sides take
turns, and of each the fastest round counts. Files of OpenVINO are exported on the spot and kept whatever their gate
says: labels of random weights mean nothing.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import numpy as np  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402
import torch  # noqa: E402
from sentence_transformers import CrossEncoder  # noqa: E402
from tiny_models import byte_level, wordpiece  # noqa: E402
from tiny_teachers import chat_tokenizer, save_classifier, save_generator, t5_tokenizer  # noqa: E402
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer  # noqa: E402

from mkdm.export.openvino_export import ExportSettings, export_model  # noqa: E402
from mkdm.export.quality_gate import ValidationPairs  # noqa: E402
from mkdm.model import FAMILIES  # noqa: E402
from mkdm.quiet import quiet_transformers  # noqa: E402
from mkdm.scoring import Scorer  # noqa: E402

WORDS, CARD = "qwen3 yes/no", "qwen3 yes/no by its card"
FEW = "bert,mpnet,albert,deberta-v2,modernbert,gte,nomic_bert,eurobert,jina_embeddings_v3,qwen3,llama"
FEW += f",{WORDS},{CARD},t5"
WAYS = "torch:fp32,torch:bf16,openvino:fp32,openvino:bf16,openvino:int8"
LENGTH, BATCH = 1024, 32
CHAT = (
    "{% for one in messages %}{{ '<|im_start|>' + one['role'] + '\n' + one['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{{ '' if 'query' and 'document' }}<|im_start|>assistant\n"
)
Pairs = list[tuple[str, str]]
Peer = Callable[[Pairs], np.ndarray]


def save(family: str, folder: Path, corpus: list[str], shape: dict[str, int]) -> None:
    """A model of that family and shape, with random weights and a tokenizer trained on the corpus."""
    if family in ("t5", "mt5"):
        heads, hidden = shape["num_attention_heads"], shape["hidden_size"]
        sizes = {"d_model": hidden, "d_kv": hidden // heads, "d_ff": 4 * hidden, "n_positions": LENGTH}
        sizes |= {"num_heads": heads, "num_layers": shape["num_hidden_layers"]}
        save_generator(folder, family, t5_tokenizer(corpus), **sizes)
        return
    if family == "distilbert":
        shape = {"dim": shape["hidden_size"], "hidden_dim": shape["intermediate_size"], "n_heads": 6} | shape
        shape["n_layers"] = shape["num_hidden_layers"]
    if family in (WORDS, CARD) or FAMILIES[family].kind == "decoder":
        tokenizer, shape = chat_tokenizer(corpus), shape | {"num_key_value_heads": 2, "head_dim": 64}
        if family == WORDS:
            tokenizer.chat_template = CHAT
        if family in (WORDS, CARD):
            save_generator(folder, "qwen3", tokenizer, **shape)
            return
    else:
        tokenizer = (wordpiece if family in ("bert", "deberta-v2", "nomic_bert") else byte_level)(corpus)
    save_classifier(folder, family, tokenizer, **shape)


def cross_encoder(folder: Path) -> Peer:
    model = CrossEncoder(str(folder), local_files_only=True, max_length=LENGTH)
    return lambda pairs: model.predict(pairs, activation_fn=torch.nn.Sigmoid(), show_progress_bar=False)


def qwen3_by_its_card(folder: Path) -> Peer:
    """What the card of Qwen3-Reranker does with transformers."""
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    prefix, suffix = (
        tokenizer.encode(text, add_special_tokens=False)
        for text in (
            "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
            'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n',
            "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
        )
    )
    no, yes = tokenizer.convert_tokens_to_ids("no"), tokenizer.convert_tokens_to_ids("yes")
    task = "Given a web search query, retrieve relevant passages that answer the query"

    @torch.no_grad()
    def scores(pairs: Pairs) -> np.ndarray:
        texts = [f"<Instruct>: {task}\n<Query>: {query}\n<Document>: {passage}" for query, passage in pairs]
        room = LENGTH - len(prefix) - len(suffix)
        ids = tokenizer(texts, padding=False, truncation="longest_first", max_length=room)["input_ids"]
        inputs = tokenizer.pad({"input_ids": [prefix + one + suffix for one in ids]}, return_tensors="pt")
        return torch.softmax(model(**inputs).logits[:, -1, [no, yes]], dim=1)[:, 1].numpy()

    return in_batches(scores)


def mono_t5_by_its_card(folder: Path) -> Peer:
    """What MonoT5's authors do with transformers: the first token of the answer, true over false."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    words = [tokenizer.convert_tokens_to_ids(f"\u2581{word}") for word in ("false", "true")]

    @torch.no_grad()
    def scores(pairs: Pairs) -> np.ndarray:
        texts = [f"Query: {query} Document: {passage} Relevant:" for query, passage in pairs]
        inputs = tokenizer(texts, padding=True, truncation=True, max_length=LENGTH, return_tensors="pt")
        begin = torch.full((len(pairs), 1), model.config.decoder_start_token_id)
        return torch.softmax(model(**inputs, decoder_input_ids=begin).logits[:, 0, words], dim=1)[:, 1].numpy()

    return in_batches(scores)


def in_batches(scores: Peer) -> Peer:
    starts = lambda pairs: range(0, len(pairs), BATCH)  # noqa: E731
    return lambda pairs: np.concatenate([scores(pairs[start : start + BATCH]) for start in starts(pairs)])


PEERS: dict[str, Callable[[Path], Peer]] = {CARD: qwen3_by_its_card, "t5": mono_t5_by_its_card}


def scorers(folder: Path, ways: list[str], pairs: Pairs) -> dict[str, Scorer]:
    """By way; files of OpenVINO are made."""
    queries, passages = (list(texts) for texts in zip(*pairs, strict=True))
    files = tuple(way.partition(":")[2] for way in ways if way.startswith("openvino"))
    if files:
        golden = np.arange(len(pairs)) % 2
        settings = ExportSettings(files, force=True)
        export_model(
            folder, (queries[:20], passages[:20]), ValidationPairs(queries, queries, passages, golden), settings
        )
    return {way: Scorer.load(folder, *way.split(":"), LENGTH) for way in ways}


def seconds(sides: dict[str, Callable[[], np.ndarray]], rounds: int) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """The fastest round of each side, in turns, and its scores; an untimed one goes first."""
    found, taken = {name: score() for name, score in sides.items()}, dict.fromkeys(sides, float("inf"))
    for _ in range(rounds):
        for name, score in sides.items():
            began = time.perf_counter()
            score()
            taken[name] = min(taken[name], time.perf_counter() - began)
    return taken, found


def row(family: str, folder: Path, pairs: Pairs, ways: list[str], rounds: int) -> str:
    """A row of the table: the peer's pairs/s, by way how many times as many, and how far scores lie apart."""
    queries, passages = (list(texts) for texts in zip(*pairs, strict=True))
    peer = PEERS.get(family, cross_encoder)(folder)
    sides: dict[str, Callable[[], np.ndarray]] = {"peer": lambda: peer(pairs)}
    for way, scorer in scorers(folder, ways, pairs).items():
        sides[way] = lambda scorer=scorer: scorer.score(queries, passages)
    taken, found = seconds(sides, rounds)
    times = [f"{taken['peer'] / taken[way]:.2f} ({np.abs(found[way] - found['peer']).max():.0e})" for way in ways]
    return " | ".join([f"| {family}", f"{len(pairs) / taken['peer']:.1f}", *times]) + " |"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--families", default=FEW)
    parser.add_argument("--ways", default=WAYS)
    for flag, value in (("rows", 64), ("rounds", 2), ("hidden", 384), ("layers", 6), ("threads", 0)):
        parser.add_argument(f"--{flag}", type=int, default=value)
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    rows = pq.read_table(ROOT / "tests/sample/pairs.parquet").to_pylist()
    corpus = [text for row in rows for text in (row["query"], row["passage"])]
    chosen = rows[:: len(rows) // arguments.rows][: arguments.rows]
    pairs = [(one["query"], one["passage"]) for one in chosen]
    shape = {"hidden_size": arguments.hidden, "num_hidden_layers": arguments.layers}
    shape |= {"num_attention_heads": arguments.hidden // 64, "intermediate_size": 4 * arguments.hidden}
    shape["max_position_embeddings"] = LENGTH + 2
    ways = arguments.ways.split(",")
    print(" | ".join(["| family", "peer, pairs/s", *ways]), "|", flush=True)
    for family in arguments.families.split(","):
        with tempfile.TemporaryDirectory() as folder, quiet_transformers():
            save(family, Path(folder), corpus, shape)
            print(row(family, Path(folder), pairs, ways, arguments.rounds), flush=True)


if __name__ == "__main__":
    main()
