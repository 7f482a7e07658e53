"""Makes an encoder of a smaller hidden size of another: `python tests/paper/narrow.py ENCODER FOLDER --heads 8`.

Of each part it keeps what has the largest weights (structured pruning by magnitude, Li et al., Pruning Filters for
Efficient ConvNets, 2017); training has to restore what that costs.
"""

import argparse
import json
import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor, arange


def narrowed(weights: dict[str, Tensor], head_size: int, heads: int, intermediate: int) -> dict[str, Tensor]:
    """The weights of a BERT encoder with fewer dimensions.

    Args:
        weights: of BertModel, by name.
        head_size: dimensions of a head; all of them stay.
        heads: kept of each layer; the hidden state keeps heads * head_size dimensions.
        intermediate: dimensions kept of a layer's feed-forward part.
    """
    hidden = _largest(weights["embeddings.word_embeddings.weight"].float().std(0), heads * head_size)
    made = {}
    for name, weight in weights.items():
        if name.startswith("embeddings."):  # [n, hidden], or [hidden] of their norm
            made[name] = weight[..., hidden].contiguous()
            continue
        layer, _, part = name.removeprefix("encoder.layer.").partition(".")
        value = weights[f"encoder.layer.{layer}.attention.self.value.weight"].float()
        best = _largest(value.reshape(-1, head_size * value.shape[1]).norm(dim=1), heads)
        of_heads = (best[:, None] * head_size + arange(head_size)).reshape(-1)
        inner = _largest(weights[f"encoder.layer.{layer}.intermediate.dense.weight"].float().norm(dim=1), intermediate)
        rows = of_heads if ".self." in name else inner if part.startswith("intermediate") else hidden
        weight = weight[rows]
        if weight.dim() == 2:
            outputs = {"attention.output.dense.weight": of_heads, "output.dense.weight": inner}
            weight = weight[:, outputs.get(part, hidden)]
        made[name] = weight.contiguous()
    return made


def _largest(values: Tensor, count: int) -> Tensor:
    return values.topk(count).indices.sort().values


def main() -> None:
    """Write the encoder's folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("encoder", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--heads", type=int, required=True)
    given = parser.parse_args()
    config = json.loads((given.encoder / "config.json").read_text())
    head_size = config["hidden_size"] // config["num_attention_heads"]
    intermediate = given.heads * config["intermediate_size"] // config["num_attention_heads"]
    weights = {k: v for k, v in load_file(given.encoder / "model.safetensors").items() if not k.startswith("pooler")}
    given.folder.mkdir(parents=True)
    for file in given.encoder.glob("*.json"):
        shutil.copyfile(file, given.folder / file.name)
    made = narrowed(weights, head_size, given.heads, intermediate)
    save_file(made, given.folder / "model.safetensors", {"format": "pt"})
    config |= {
        "hidden_size": given.heads * head_size,
        "num_attention_heads": given.heads,
        "intermediate_size": intermediate,
    }
    (given.folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


if __name__ == "__main__":
    main()
