"""How a model is asked about a pair: its prompt, its template, and the words that it answers. Needs no torch.

A classifier reads query and passage as its tokenizer joins them. A generative reranker reads a text that has both in
it, and what it would answer to that, yes or no, is its score.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mkdm.errors import ModelError
from mkdm.model.families import FAMILIES, Family
from mkdm.model.folder import read_json
from mkdm.model.weights import read_shapes

QUERY, PASSAGE, PROMPT = "{query}", "{passage}", "{prompt}"
CHAT = "chat"
"""The template that stands for the tokenizer's own chat template."""


@dataclass(frozen=True)
class Prompting:
    """What a zoo says of how a model is asked; None leaves it to the model.

    Attributes:
        prompt: the task in words. It takes the place of {prompt} in a template, is the system's message of a chat
            template, and stands right before the query of a classifier without a template, as in a CrossEncoder.
        template: the text of a pair, with {query} before {passage}; or chat, for the tokenizer's chat template, which
            then takes messages of the roles query and document, as in sentence-transformers.
        label: what means relevant: the name or number of a classifier's label, or the word that a generative reranker
            answers, such as yes.
    """

    prompt: str | None = None
    template: str | None = None
    label: str | None = None


@dataclass(frozen=True)
class Wording:
    """How the pairs of one model are worded.

    Attributes:
        template: the text of a pair with {query} and {passage} in it; None joins them as the tokenizer does.
        before_query: what stands right before the query, without a template.
        complete: whether the template has the special tokens that begin and end a text.
        answers: ids of the irrelevant and the relevant token that a generative reranker may answer, or of the relevant
            alone where its logit is the score; none of a classifier.
    """

    template: str | None = None
    before_query: str = ""
    complete: bool = False
    answers: tuple[int, ...] = ()


PLAIN = Prompting()
_WHERE = "as a flag of mkdm score, or in its entry of a zoo"
_OPPOSITES = {"yes": "no", "Yes": "No", "YES": "NO", "true": "false", "True": "False", "1": "0"}
_QWEN3_TEMPLATE = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
    "<Instruct>: {prompt}\n<Query>: {query}\n<Document>: {passage}"
    "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
)
_QWEN3_PROMPT = "Given a web search query, retrieve relevant passages that answer the query"
_MONO_T5_TEMPLATE = "Query: {query} Document: {passage} Relevant:"
_KNOWN = {  # what the cards of Qwen3-Reranker, of MonoT5 and of the mT5 that mMARCO trained say, and their answer
    "qwen3": (_QWEN3_TEMPLATE, _QWEN3_PROMPT, "yes"),
    "t5": (_MONO_T5_TEMPLATE, None, "true"),
    "mt5": (_MONO_T5_TEMPLATE, None, "yes"),
}


def is_generative(family: Family, weights: Any) -> bool:
    """Whether a model answers in words: an encoder-decoder, or a decoder without a classifier's header."""
    return family.kind == "encoder-decoder" or (family.kind == "decoder" and family.header[-1] not in weights)


def read_wording(folder: str | Path, prompting: Prompting = PLAIN) -> Wording | None:
    """How a model's pairs are worded; None for a classifier that reads them as its tokenizer joins them.

    Args:
        folder: of a family that works here; see `check_fitness`.

    Raises:
        ModelError: a generative reranker without a known template, a template without its places, or an answer that
            is no single token.
    """
    folder = Path(folder)
    config = read_json(folder / "config.json")
    family = FAMILIES.get(str(config.get("model_type")))
    decoder = None if family is None or family.kind == "encoder" else family
    generative = decoder is not None and is_generative(decoder, read_shapes(folder))
    if not generative and prompting.template is None:
        return Wording(before_query=prompting.prompt) if prompting.prompt else None
    from mkdm.model.tokenizer import load_tokenizer  # transformers, which most drivers need not wait for

    tokenizer = load_tokenizer(folder)
    template, prompt, answer = _KNOWN.get(config["model_type"], (None, None, None)) if generative else (None,) * 3
    answers: tuple[int, ...] = ()
    if generative:
        saved = () if prompting.label else _saved_answers(folder)
        answers = saved or _answers(folder, tokenizer, prompting.label or answer)
    said = _saved_prompt(folder) if prompting.prompt is None and generative else prompting.prompt
    if prompting.template == CHAT or (prompting.template is None and generative and _has_roles(tokenizer)):
        return Wording(_chat(folder, tokenizer, said), complete=True, answers=answers)
    template = prompting.template or template
    if template is None:
        raise ModelError(
            f"{folder} answers in words, and nothing tells how to ask it: give a template with {QUERY} and {PASSAGE} "
            f"in it, and the label that means relevant; {_WHERE}"
        )
    if said is None and PROMPT in template:
        said = prompt
    return Wording(_filled(folder, template, said), answers=answers)


def prompted_version(version: str, folder: str | Path, prompting: Prompting = PLAIN) -> str:
    """The content hash of a model and of how it is asked; that of its folder alone where nothing is said of that.

    Args:
        version: of the folder; see `model_version`.

    Raises:
        ModelError: as for `read_wording`.
    """
    wording = read_wording(folder, prompting)
    if wording is None and prompting.label is None:
        return version
    said = {"version": version, "label": prompting.label, "wording": None if wording is None else asdict(wording)}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]


def _filled(folder: Path, template: str, prompt: str | None) -> str:
    """The template with its prompt in place."""
    if PROMPT in template and prompt is None:
        raise ModelError(f"the template of {folder} has {PROMPT}: give a prompt beside it")
    if prompt is not None and PROMPT not in template:
        raise ModelError(f"the template of {folder} has no place for its prompt: write {PROMPT} into it")
    if prompt and (QUERY in prompt or PASSAGE in prompt):
        raise ModelError(f"the prompt of {folder} has {QUERY} or {PASSAGE} in it, which belong into the template")
    template = template.replace(PROMPT, prompt or "")
    if (template.count(QUERY), template.count(PASSAGE)) != (1, 1) or template.index(QUERY) > template.index(PASSAGE):
        raise ModelError(f"the template of {folder} must have {QUERY} once and then {PASSAGE} once")
    return template


def _has_roles(tokenizer: Any) -> bool:
    chat = getattr(tokenizer, "chat_template", None)
    return isinstance(chat, str) and all(f'"{role}"' in chat or f"'{role}'" in chat for role in ("query", "document"))


def _chat(folder: Path, tokenizer: Any, prompt: str | None) -> str:
    if not _has_roles(tokenizer):
        raise ModelError(
            f"the tokenizer of {folder} has no chat template with the roles query and document: give the template; "
            f"{_WHERE}"
        )
    messages = [] if prompt is None else [{"role": "system", "content": prompt}]
    messages += [{"role": "query", "content": QUERY}, {"role": "document", "content": PASSAGE}]
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except Exception as error:  # whatever a template raises
        raise ModelError(f"the chat template of {folder} cannot be filled: {' '.join(str(error).split())}") from error
    return _filled(folder, str(text), None)


def _answers(folder: Path, tokenizer: Any, label: str | None) -> tuple[int, ...]:
    """The ids of the irrelevant and the relevant token, by the word that means relevant."""
    if label not in _OPPOSITES:
        raise ModelError(
            f"{folder} answers in words: give the label that means relevant, one of {', '.join(_OPPOSITES)}; {_WHERE}"
        )
    found = [tokenizer.encode(word, add_special_tokens=False) for word in (_OPPOSITES[label], label)]
    if any(len(ids) != 1 or ids[0] == tokenizer.unk_token_id for ids in found):
        raise ModelError(f"the tokenizer of {folder} has no single tokens for {label} and {_OPPOSITES[label]}")
    return tuple(int(ids[0]) for ids in found)


def _saved_answers(folder: Path) -> tuple[int, ...]:
    """The tokens that sentence-transformers saved with a CrossEncoder of a generative model."""
    kinds = {str(one.get("type", "")).rpartition(".")[2]: one for one in read_json(folder / "modules.json", [])}
    if "LogitScore" not in kinds:
        return ()
    saved = read_json(folder / str(kinds["LogitScore"].get("path", "")) / "config.json")
    ids = (saved.get("false_token_id"), saved.get("true_token_id"))
    return tuple(int(one) for one in ids if one is not None)


def _saved_prompt(folder: Path) -> str | None:
    """The prompt that sentence-transformers saved as the default."""
    saved = read_json(folder / "config_sentence_transformers.json", {})
    prompt = (saved.get("prompts") or {}).get(saved.get("default_prompt_name"))
    return str(prompt) if prompt else None
