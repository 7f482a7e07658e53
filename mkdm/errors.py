"""What can go wrong, named: exceptions that stop a command, and codes that reject one row; and how it is told."""

from enum import StrEnum

from mkdm.credentials import has_credentials, hide_credentials


class MkdmError(Exception):
    """A fault that the user can mend. The command line prints its text on one line and exits 2.

    The text says what is wrong, where, and what to do about it. Credentials in it are hidden.
    """

    def __init__(self, text: object = "") -> None:
        super().__init__(hide_credentials(str(text)))


class ConfigError(MkdmError):
    """A flag, setting or combination of them that cannot work."""


class MachineError(ConfigError):
    """A machine that cannot run what a run was settled to."""


class ModelError(MkdmError):
    """A model folder that is missing, incomplete, changed, or of a kind that is not supported."""


class InputError(MkdmError):
    """An input table or file that is missing, empty, or has the wrong columns or types."""


class ClusterError(MkdmError):
    """Spark, Java or Delta's JARs could not be started or found."""


class RejectRateError(MkdmError):
    """More rows were rejected than `--max-reject-rate` allows."""


class RunFailedError(MkdmError):
    """A run that stopped part way; what it had committed stays and the same command goes on from there."""


class QualityGateError(MkdmError):
    """An exported model whose scores lie too far from the model's own."""


class TrainingError(MkdmError):
    """A training run that had to stop; its last good state stays, and the text says where."""


class RejectCode(StrEnum):
    """Why one row was rejected: the `error_code` of `rejected_pairs` and of `rejected_inputs`."""

    MALFORMED_ROW = "malformed_row"
    NULL_KEY = "null_key"
    DUPLICATE_KEY = "duplicate_key"
    INVALID_GOLDEN_LABEL = "invalid_golden_label"
    CONFLICTING_GOLDEN_LABEL = "conflicting_golden_label"
    NULL_QUERY = "null_query"
    NULL_PASSAGE = "null_passage"
    EMPTY_QUERY = "empty_query"
    EMPTY_PASSAGE = "empty_passage"
    INVALID_TEXT = "invalid_text"
    QUERY_TOO_LONG = "query_too_long"
    TOKENIZER_ERROR = "tokenizer_error"
    MODEL_ERROR = "model_error"
    NON_FINITE_SCORE = "non_finite_score"
    NULL_TEXT = "null_text"
    EMPTY_TEXT = "empty_text"
    TEXT_TOO_LONG = "text_too_long"
    HTML_TEXT = "html_text"
    INVALID_FREQUENCY = "invalid_frequency"
    INVALID_RANK = "invalid_rank"
    UNKNOWN_QUERY = "unknown_query"
    UNKNOWN_DOCUMENT = "unknown_document"
    CUTTER_ERROR = "cutter_error"


def first_line(error: BaseException) -> str:
    """The first line of an exception's text, for errors that are shown on one line."""
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__


def refuse_credentials(location: str, what: str) -> None:
    """Refuse a path or URI that carries a password, key, token or signature: Spark would log it with its plans.

    Raises:
        ConfigError: it does; the text does not have it.
    """
    if has_credentials(location):
        raise ConfigError(
            f"{what} has credentials in its URI, which Spark would write into plans and logs: give them as Spark "
            f"settings such as spark.hadoop.fs.s3a.secret.key, through the environment, or by the machine's role"
        )
