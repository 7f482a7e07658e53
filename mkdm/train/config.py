"""The settings of a training run."""

from dataclasses import dataclass
from typing import Literal

from mkdm.config import require_at_least, require_shares
from mkdm.errors import ConfigError
from mkdm.model import PASSAGE_POSITION

_AT_LEAST_ONE = (
    "num_layers",
    "epochs",
    "batch_size",
    "token_budget",
    "evaluate_every",
    "checkpoint_every",
    "valid_rows",
    "workers",
)
_AT_LEAST_ZERO = (
    "patience",
    "stage_one_epochs",
    "match_weight",
    "list_weight",
    "separate_layers",
    "passage_position",
)
_SHARES = ("alpha", "warmup_share", "dropout")
ELSEWHERE = (
    "output",
    "feed",
    "workers",
    "checkpoint_every",
    "mlflow",
    "mlflow_experiment",
    "register",
    "register_alias",
    "token_budget",
)
"""Settings that a run may change when it goes on: they say where and how it runs, not what it trains."""

SEPARATE = ("separate_layers", "passage_position")
"""Settings that decide nothing where no layer is separate, so that a run of before they were there goes on."""


@dataclass(frozen=True)
class TrainConfig:
    """Train a teacher or a student: on golden labels, on a zoo's soft labels, or both, in one or two stages.

    Raises:
        ConfigError: a number outside its range.
    """

    encoder: str
    """Folder to start from: a pretrained encoder, or a student of ours, whose headers are then taken over too."""
    training_set: str
    """Folder that `mkdm export-training-set` wrote; its split `train` is trained on."""
    output: str
    """Folder for the student: weights, tokenizer, training_log.jsonl; and the state of the run while it lasts. Of
    several processes, all see the same one."""
    valid_set: str | None = None
    """Training set whose split `valid` chooses the best checkpoint; default: that of --training-set."""
    teachers: str = "all"
    """Teachers to learn from: all of the training set, none (golden labels alone), or ids joined by commas."""
    alpha: float = 0.9
    """α of (5), the weight of the soft labels; with 1 the golden labels are left out, in the loss and in the score."""
    list_weight: float = 0.0
    """Weight of a loss over the list of a query's passages, beside (5); batches then hold whole queries."""
    stage_one_set: str | None = None
    """Training set of a first stage on soft labels alone, usually of very many unlabelled pairs (TS-MKDM)."""
    stage_one_epochs: int = 1
    """Passes over the training set of the first stage."""
    random_start: bool = False
    """Whether the encoder starts from random weights instead of its own, which then give their shape alone."""
    num_layers: Literal["all"] | int = 3
    """k, the layers of the encoder to keep; all for a teacher."""
    separate_layers: int = 0
    """s, the first layers that read query and passage apart, at most k − 2: each text of a block goes through them
    once."""
    passage_position: int = PASSAGE_POSITION
    """With separate layers, where the positions of a passage start; it is cut to what the training set's length leaves
    from there on."""
    epochs: int = 1
    """Passes over the training pairs."""
    learning_rate: float = 3e-5
    """Peak learning rate of AdamW, in each stage."""
    warmup_share: float = 0.1
    """Share of a stage's steps over which the learning rate rises; it then falls linearly to 0."""
    weight_decay: float = 0.01
    """Weight decay of matrices; biases and norms have none."""
    clip_norm: float = 1.0
    """Gradients are scaled down to this norm."""
    dropout: float = 0.1
    """Dropout in encoder and headers; on a CPU, drawing it takes as long as the rest of the step."""
    match_weight: float = 0.0
    """Weight of an auxiliary loss: which query tokens occur in the passage, told from the layer before the last,
    or with separate layers from the first that sees both."""
    batch_size: int = 256
    """Pairs of one optimiser step, over all processes."""
    token_budget: int = 4096
    """Padded tokens of one forward and backward pass; a step accumulates as many as it needs."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Number format of the forward pass; auto takes bf16 where the machine is quicker with it."""
    evaluate_every: int = 100
    """Steps between validations; the student of the highest validation AUC is kept."""
    patience: int = 0
    """Validations without a better AUC after which a stage ends; 0: none ends early."""
    valid_rows: int | None = None
    """Validation pairs at most; default: all."""
    checkpoint_every: int = 100
    """Steps between two saved states, from which a killed run goes on."""
    feed: Literal["petastorm", "arrow"] = "petastorm"
    """What reads the training set; both give the same rows in the same order."""
    workers: int = 1
    """Background threads of the feed."""
    seed: int = 0
    """Decides initial headers, order of the pairs and dropout."""
    mlflow: str | None = None
    """MLflow tracking URI, such as file:runs or databricks; default: $MLFLOW_TRACKING_URI, or no MLflow."""
    mlflow_experiment: str = "mkdm"
    """MLflow experiment."""
    register: str | None = None
    """Registered model of MLflow, in Unity Catalog CATALOG.SCHEMA.NAME, that gets the student as a new version."""
    register_alias: str | None = None
    """Alias of that version, such as champion, by which mkdm score --model models:/NAME@ALIAS finds it."""

    def __post_init__(self) -> None:
        require_at_least(self, 1, *_AT_LEAST_ONE)
        require_shares(self, *_SHARES)
        for name in ("learning_rate", "clip_norm"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"--{name.replace('_', '-')} is {getattr(self, name)}; it must be above 0")
        require_at_least(self, 0, *_AT_LEAST_ZERO)
