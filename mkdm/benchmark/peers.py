"""The usual tools over the student's weights, behind one call: what `mkdm benchmark` puts beside the scorer.

Each is called as its documentation would have it called, on all the machine's cores or its GPU.
"""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mkdm.benchmark.ctranslate2_peer import ctranslate2
from mkdm.benchmark.plain_student import BATCH_SIZE, PlainScorer, Scorer, in_sorted_batches, plain_alpha, scores_of
from mkdm.model import load_tokenizer
from mkdm.scoring import DTYPES

MODEL_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def cross_encoder(folder: str, precision: str) -> Scorer:
    """`sentence_transformers.CrossEncoder.predict`, which sorts by length itself."""
    from sentence_transformers import CrossEncoder

    encoder = CrossEncoder(
        folder, local_files_only=True, activation_fn=torch.nn.Identity(), model_kwargs={"dtype": DTYPES[precision]}
    )
    alpha = float(encoder.config.mkdm_alpha)

    def score(queries: Sequence[str], passages: Sequence[str]) -> NDArray[np.float32]:
        pairs = list(zip(queries, passages, strict=True))
        return scores_of(encoder.predict(pairs, batch_size=BATCH_SIZE, convert_to_tensor=True), alpha)

    return score


def pipeline(folder: str, precision: str) -> Scorer:
    """`transformers.pipeline("text-classification")` over pairs, which batches them in the order of the input."""
    from transformers import pipeline as make_pipeline

    device = 0 if torch.cuda.is_available() else "cpu"
    classify: Any = make_pipeline(
        "text-classification",
        folder,
        tokenizer=load_tokenizer(folder),
        dtype=DTYPES[precision],
        device=device,
        top_k=None,
        function_to_apply="none",
        batch_size=BATCH_SIZE,
        truncation="only_second",
    )
    alpha, labels = float(classify.model.config.mkdm_alpha), classify.model.config.id2label

    def score(queries: Sequence[str], passages: Sequence[str]) -> NDArray[np.float32]:
        pairs = [{"text": query, "text_pair": passage} for query, passage in zip(queries, passages, strict=True)]
        found = [{one["label"]: one["score"] for one in answer} for answer in classify(pairs)]
        logits = torch.tensor([[answer[labels[i]] for i in range(len(labels))] for answer in found])
        return scores_of(logits, alpha)

    return score


def onnx_file(folder: str | Path, precision: str) -> Path:
    """Where the ONNX file of a plain folder lies."""
    return Path(folder, f"model_{precision}.onnx")


def export_onnx(folder: str, precisions: Sequence[str]) -> None:
    """Write a plain folder's model as ONNX in fp32 and, if asked for, with weights and products in int8 (dynamic).

    The older of torch's exporters over eager attention gives the graph whose attention ONNX Runtime fuses: on a Zen 4,
    2 cores, 32 × 120 tokens of 3 × 384, 128 and 284 pairs/s in fp32 and int8, against 107 and 208 of the newer one.
    """
    scorer = PlainScorer(folder, "fp32")
    scorer.model.to("cpu").set_attn_implementation("eager")
    inputs = {name: torch.ones(2, 8, dtype=torch.int64) for name in MODEL_INPUTS}
    plain = onnx_file(folder, "fp32")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            scorer.model,
            (),
            str(plain),
            kwargs=inputs,
            input_names=list(MODEL_INPUTS),
            output_names=["logits"],
            dynamic_axes={name: {0: "batch", 1: "length"} for name in MODEL_INPUTS},
            dynamo=False,
        )
    if "int8" in precisions:
        import onnx
        from onnxruntime.quantization import QuantType, quantize_dynamic

        nodes = [node.name for node in onnx.load(plain, load_external_data=False).graph.node]
        headers = [name for name in nodes if "pooler" in name or "classifier" in name]  # ours has no pooler to round
        quantize_dynamic(plain, onnx_file(folder, "int8"), weight_type=QuantType.QInt8, nodes_to_exclude=headers)


def onnxruntime(folder: str, precision: str) -> Scorer:
    """An ONNX Runtime session on the CPU, with its default graph optimisation, over batches sorted by length."""
    import onnxruntime as runtime

    tokenizer, options = load_tokenizer(folder), runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = runtime.InferenceSession(onnx_file(folder, precision), options, providers=["CPUExecutionProvider"])
    alpha = plain_alpha(folder)

    def score(queries: Sequence[str], passages: Sequence[str]) -> NDArray[np.float32]:
        inputs = tokenizer(list(queries), list(passages), truncation="only_second", padding=True, return_tensors="np")
        (logits,) = session.run(["logits"], {name: inputs[name] for name in MODEL_INPUTS})
        return scores_of(torch.from_numpy(logits), alpha)

    return in_sorted_batches(score)


def transformers(folder: str, precision: str) -> Scorer:
    """A plain transformers model over batches sorted by length: what `predict_batch_udf` and Ray Data run."""
    return in_sorted_batches(PlainScorer(folder, precision))


PEERS: dict[str, Callable[[str, str], Scorer]] = {
    "CrossEncoder": cross_encoder,
    "pipeline": pipeline,
    "onnxruntime": onnxruntime,
    "ctranslate2": ctranslate2,
}
"""By name, from a plain folder and a precision to a scorer of any number of pairs."""
