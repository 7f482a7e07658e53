"""Which output of a classifier is the relevant one, as its config's id2label names it. Needs no torch."""

import re
from pathlib import Path
from typing import Any

from mkdm.errors import ModelError
from mkdm.model.folder import read_json

_RELEVANT = {"relevant", "positive", "pos", "yes", "true", "1", "match", "matched", "entailment", "entails", "entailed"}
_RELEVANT |= {"duplicate", "paraphrase", "equivalent", "similar", "correct", "good", "related", "answer", "answerable"}
_OPPOSITE = {"irrelevant", "negative", "neg", "no", "false", "0", "mismatch", "unmatched", "contradiction", "different"}
_OPPOSITE |= {"dissimilar", "incorrect", "wrong", "bad", "unrelated", "unanswerable"}
_NEGATION = re.compile(r"^(not|non|no)_?(?=.)")
_WRITE = 'write "id2label": {"0": "irrelevant", "1": "relevant"} into its config.json, in the order of its outputs'


def number_of_labels(config: dict[str, Any]) -> int:
    """Outputs of a classifier with that config.json; two where it tells none, as in transformers."""
    return len(_names(config)) or int(config.get("num_labels", 2))


def relevant_label(config: dict[str, Any], folder: str | Path, label: str | None = None) -> int:
    """The index of the output that stands for relevant: 0 of one output, 0 or 1 of two, that of a label that is given.

    Names tell: relevant, positive, yes, true, 1, match, entailment, duplicate and the like, beside their opposites, or
    beside another name that is no opposite; LABEL_0 and LABEL_1, or no names, make it LABEL_1.

    Args:
        config: what config.json holds.
        folder: named in errors.
        label: the relevant one by name or number, of any number of labels that exclude each other.

    Raises:
        ModelError: no such label; without one, three or more outputs, names that do not tell, or scores that are no
            probability of one label.
    """
    labels = number_of_labels(config)
    if label is not None:
        return _named_label(config, folder, label)
    if labels not in (1, 2):
        told_names = ", ".join(_names(config).values())
        raise ModelError(
            f"{folder} has {labels} labels{f' ({told_names})' if told_names else ''}, as a model of inference has; a "
            f"teacher has one (a logit) or two (not, relevant): train or choose one with such a header"
        )
    if labels == 2 and config.get("problem_type") == "multi_label_classification":
        raise ModelError(f"{folder} is a classifier of several labels at once, not of two that exclude each other")
    names = _names(config)
    if not names:
        return labels - 1
    if sorted(names) != list(range(labels)):
        raise ModelError(f"id2label in {folder} numbers its labels {sorted(names)}: {_WRITE}")
    told = [_told(names[number]) for number in range(labels)]
    if labels == 1:
        if told == [False]:
            raise ModelError(f"the one label of {folder} is {names[0]!r}, so that its scores would be inverted")
        return 0
    plain = [_plain(name) for _, name in sorted(names.items())]
    if set(plain) == {"label_0", "label_1"}:
        return plain.index("label_1")
    for number in (0, 1):
        other = told[1 - number]
        negated = _NEGATION.sub("", plain[1 - number]) == plain[number] != plain[1 - number]
        if (told[number] and not other) or (negated and told[number] is not False):
            return number
    raise ModelError(
        f"id2label in {folder} has {names[0]!r} and {names[1]!r}, which do not tell the relevant: {_WRITE}"
    )


def relevant_is_first(folder: str | Path) -> bool:
    """Whether a folder holds a teacher of two labels, of which the first is the relevant one.

    Raises:
        ModelError: as for `relevant_label`.
    """
    config = read_json(Path(folder, "config.json"))
    teacher = config.get("model_type") != "mkdm" and number_of_labels(config) == 2
    return teacher and relevant_label(config, folder) == 0


def _named_label(config: dict[str, Any], folder: str | Path, label: str) -> int:
    labels = number_of_labels(config)
    names = _names(config) or {number: f"LABEL_{number}" for number in range(labels)}
    found = [number for number, name in names.items() if label in (name, str(number))]
    if len(found) != 1 or labels < 2 or config.get("problem_type") == "multi_label_classification":
        has = ", ".join(f"{number} ({name})" for number, name in sorted(names.items()))
        raise ModelError(f"{folder} has no label {label!r} of several that exclude each other; it has {has}")
    return found[0]


def _names(config: dict[str, Any]) -> dict[int, str]:
    """Label names by their output, of id2label, or else of label2id."""
    if config.get("id2label"):
        return {int(number): str(name) for number, name in config["id2label"].items()}
    return {int(number): str(name) for name, number in (config.get("label2id") or {}).items()}


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "_", name.strip().lower()).strip("_")


def _told(name: str) -> bool | None:
    """Whether a name means relevant (True) or its opposite (False)."""
    plain = _plain(name).removeprefix("is_")
    if plain in _RELEVANT:
        return True
    return False if plain in _OPPOSITE or _NEGATION.sub("", plain) in _RELEVANT else None
