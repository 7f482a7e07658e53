"""The body of `POST /rerank`, in the form that rerank clients send, checked before anything is scored."""

import json
from dataclasses import dataclass
from typing import Any

from mkdm.errors import MkdmError

NOT_SERVED = ("raw_scores", "rank_fields", "max_chunks_per_doc", "max_tokens_per_doc")
"""Fields of other servers that would change the answer; whatever else is not known is left alone."""


class RequestError(MkdmError):
    """A request that gets no scores; its text is the answer's one line.

    Attributes:
        status: of HTTP.
        kind: of the fault, in one word.
        retry_after: seconds after which to ask again, or None where that would not help.
    """

    def __init__(self, status: int, kind: str, text: str, retry_after: int | None = None) -> None:
        super().__init__(" ".join(text.split()))
        self.status, self.kind, self.retry_after = status, kind, retry_after


@dataclass(frozen=True)
class Document:
    """A passage to score.

    Attributes:
        passage_id: as in `ranked_passages`, where the client knows it.
    """

    text: str
    passage_id: str | None = None


@dataclass(frozen=True)
class RerankRequest:
    """A query and the documents to order by how well they answer it.

    Attributes:
        top_n: how many results at most; None for all.
        return_documents: whether results have their texts.
        query_id: as in `ranked_passages`, where the client knows it.
    """

    query: str
    documents: list[Document]
    top_n: int | None = None
    return_documents: bool = False
    query_id: str | None = None


def read_request(body: bytes, names: tuple[str, ...], most_documents: int) -> RerankRequest:
    """The request of a JSON body.

    Args:
        body: UTF-8.
        names: that the served model answers to.
        most_documents: of a request.

    Raises:
        RequestError: 400 for what is no JSON object, 404 for another model, 413 for too many documents, 422 for a
            field that is missing, or not as it should be.
    """
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError) as error:  # a UnicodeDecodeError is a ValueError
        reason = "too many brackets in one another" if isinstance(error, RecursionError) else str(error)
        raise RequestError(400, "malformed", f"the body is not JSON: {reason}") from error
    if not isinstance(fields, dict):
        raise RequestError(400, "malformed", f"the body is {_kind(fields)}: give an object with query, documents")
    for name in NOT_SERVED:
        if fields.get(name):
            raise _invalid(f"{name} is not served: leave it out")
    model = fields.get("model")
    if model is not None and model not in names:
        known = " or ".join(dict.fromkeys(names))
        raise RequestError(404, "unknown_model", f"model is {str(model)[:80]!r}; here is {known}: name that or none")
    documents = fields.get("documents")
    if not isinstance(documents, list) or not documents:
        raise _invalid(f"documents is {_kind(documents)}: give a list of texts, or of objects with text, at least one")
    if len(documents) > most_documents:
        raise RequestError(413, "too_large", f"{len(documents)} documents, {most_documents} are allowed: send fewer")
    top_n, wanted = fields.get("top_n"), fields.get("return_documents")
    if top_n is not None and (isinstance(top_n, bool) or not isinstance(top_n, int) or top_n < 1):
        raise _invalid("top_n must be a whole number from 1 on, or null")
    if not isinstance(wanted, bool | None):
        raise _invalid("return_documents must be true or false")
    return RerankRequest(
        query=_text(fields.get("query"), "query"),
        documents=[_document(one, f"documents[{place}]") for place, one in enumerate(documents)],
        top_n=top_n,
        return_documents=bool(wanted),
        query_id=_id(fields.get("query_id"), "query_id"),
    )


def _document(value: Any, name: str) -> Document:
    if isinstance(value, dict):
        return Document(_text(value.get("text"), f"{name}.text"), _id(value.get("id"), f"{name}.id"))
    return Document(_text(value, name))


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise _invalid(f"{name} is {_kind(value)}: give a text")
    if not value.strip():
        raise _invalid(f"{name} is empty: give a text")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise _invalid(f"{name} has half of a character at position {error.start}") from error
    return value


def _id(value: Any, name: str) -> str | None:
    return None if value is None else _text(value, name)


def _invalid(text: str) -> RequestError:
    return RequestError(422, "invalid", text)


def _kind(value: Any) -> str:
    """What a JSON value is, in JSON's words."""
    if value is None:
        return "missing"
    if isinstance(value, bool):
        return "true or false"
    kinds: dict[type, str] = {dict: "an object", list: "an empty list" if value == [] else "a list", str: "a text"}
    return kinds.get(type(value), "a number")
