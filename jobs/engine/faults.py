"""What Spark, Delta Lake, Hadoop and py4j raise, as our own errors of one line: told here, by error class alone."""

import re
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from pyspark.errors import PySparkException
from pyspark.util import is_remote_only

from mkdm import errors
from mkdm.errors import ConfigError, InputError, MkdmError, RunFailedError

P = ParamSpec("P")
T = TypeVar("T")
if is_remote_only():  # PySpark's client alone, which has no py4j
    FOREIGN: tuple[type[Exception], ...] = (PySparkException,)
else:
    from cluster.classic import JAVA_ERRORS

    FOREIGN = (PySparkException, *JAVA_ERRORS)
"""What reaches Python from the JVM; Delta's own exceptions are among the former."""
ANY_FAULT: tuple[type[Exception], ...] = (*FOREIGN, MkdmError)
"""The same, and what is ours."""
FOREIGN_OR_INPUT: tuple[type[Exception], ...] = (*FOREIGN, InputError)
"""The same, and an input that is there no more."""
_CONDITION = re.compile(r"\[([A-Z][A-Z0-9_]+(?:\.[A-Z0-9_]+)*)\]")
_CLASS = re.compile(r"^\(([\w.$]+)\) ")
"""How the text of an error over Spark Connect begins, unless its class is PySpark's own."""
_CONFLICT = re.compile(
    r"\bio\.delta\.exceptions\.|\[DELTA_(?:CONCURRENT_\w+|METADATA_CHANGED|PROTOCOL_CHANGED)[.\w]*\]"
)
_CAUSE = re.compile(r"^Caused by: ([\w.$]+): (.*)$", re.MULTILINE)
_WORKER = re.compile(r"^mkdm\.errors\.(\w+): (.*)$", re.MULTILINE)
_BEFORE = re.compile(
    r"^(\([\w.$]+\) |Job aborted due to stage failure: .*?\): |\[[A-Z0-9_.]+\] |[\w.$]+(Exception|Error): )+"
)
"""What stands before the sentence of an exception: whose task it was, conditions, class names."""

FAULTS: dict[str, tuple[type[MkdmError], str]] = {
    "com.fasterxml.jackson.core.JsonParseException": (
        InputError,
        "the log of the Delta table is damaged: restore it from a copy",
    ),
    "DELTA_MISSING_DELTA_TABLE": (
        InputError,
        "it is a view, or a table of another format than Delta: give a Delta table, or the files beneath it with their "
        "ending",
    ),
    "EXPECT_TABLE_NOT_VIEW": (InputError, "it is a view: give a Delta table"),
    "DELTA_ONLY_OPERATION": (InputError, "it is a table of another format: give a Delta table"),
    "DELTA_TABLE_NOT_FOUND": (InputError, "give the place of a Delta table"),
    "DELTA_PATH_DOES_NOT_EXIST": (InputError, "give the place of a Delta table"),
    "TABLE_OR_VIEW_NOT_FOUND": (InputError, "give the name of a table that is there, whole: CATALOG.SCHEMA.TABLE"),
    "PATH_NOT_FOUND": (InputError, "give files that are there"),
    "SCHEMA_NOT_FOUND": (ConfigError, "create the schema first, or give another --warehouse"),
    "REQUIRES_SINGLE_PART_NAMESPACE": (
        ConfigError,
        "the session has no such catalog: give SCHEMA or CATALOG.SCHEMA of one",
    ),
    "CATALOG_NOT_FOUND": (ConfigError, "the session has no such catalog: give one that it has"),
    "INSUFFICIENT_PERMISSIONS": (ConfigError, "ask for that permission, or give another place"),
    "DELTA_CANNOT_CREATE_LOG_PATH": (
        ConfigError,
        "the place cannot be written: give another --warehouse, or the right to write",
    ),
    "DELTA_CHANGE_DATA_FILE_NOT_FOUND": (
        InputError,
        "VACUUM took files of the change feed: run once without --incremental",
    ),
    "DELTA_FILE_NOT_FOUND_DETAILED": (
        InputError,
        "files of that version are gone: RESTORE the table, or read a newer version",
    ),
    "DELTA_TABLE_INVALID_CHARACTERS": (ConfigError, "give another name"),
    "FAILED_READ_FILE.FILE_NOT_EXIST": (
        InputError,
        "a file of the pinned version is gone, as after VACUUM: read a newer version; an incremental run whose change "
        "feed lost it has to run once without --incremental",
    ),
    "FAILED_READ_FILE.PARQUET_COLUMN_DATA_TYPE_MISMATCH": (
        InputError,
        "a column's type has changed between the versions that are read: run once without --incremental, or cast the "
        "column to one type",
    ),
    "FAILED_READ_FILE.CANNOT_READ_FILE_FOOTER": (
        InputError,
        "the file is damaged, or of another format than its ending says",
    ),
    "FAILED_READ_FILE": (InputError, "the file cannot be read: it is damaged, or not what its ending says"),
    "UNSUPPORTED_FEATURE": (ConfigError, "this Spark cannot do that"),
    "org.apache.hadoop.fs.UnsupportedFileSystemException": (
        ConfigError,
        "give a folder, or a URI whose scheme Spark knows",
    ),
    "java.lang.ClassNotFoundException": (ConfigError, "Spark lacks the JAR for that: see cluster/README.md on buckets"),
    "org.apache.hadoop.fs.ParentNotDirectoryException": (
        ConfigError,
        "a file stands where a folder should be: give another place",
    ),
    "org.apache.hadoop.security.AccessControlException": (
        ConfigError,
        "the place may not be read or written by this user",
    ),
    "java.nio.file.AccessDeniedException": (ConfigError, "the place may not be read or written by this user"),
    "java.io.FileNotFoundException": (
        InputError,
        "a file that the table names is gone: RESTORE the table, or read another version",
    ),
    "java.net.ConnectException": (
        RunFailedError,
        "Spark's driver or a service that it needs is gone: start the command again",
    ),
    "java.lang.OutOfMemoryError": (RunFailedError, "give more --driver-memory or --executor-memory"),
}
"""By condition of Spark and Delta, or by Java class: what it is to us, and what to do. The first that fits is told."""


def told(error: BaseException) -> MkdmError:
    """An exception of the JVM as one of ours: what is wrong, where, and what to do, on one line.

    An error that our own code raised in a Python worker comes back as it was raised.
    """
    if isinstance(error, MkdmError):
        return error
    worker = _WORKER.search(str(error))
    if worker:
        kind = getattr(errors, worker[1], RunFailedError)
        return kind(worker[2]) if issubclass(kind, MkdmError) else RunFailedError(worker[0])
    causes = list(_causes(error))
    for fault, (kind, advice) in FAULTS.items():
        for names, text in reversed(causes):
            if text and any(name == fault or name.startswith(f"{fault}.") for name in names):
                places = [] if "/" in text else [_plain(other) for _, other in causes if "/" in other][-1:]
                return kind(": ".join([*places, _plain(text), advice]))
    root = next((text for _, text in reversed(causes) if text), str(error))
    return RunFailedError(_plain(root) or type(error).__name__)


def is_conflict(error: BaseException) -> bool:
    """Whether a commit failed because another writer came first: Delta's class of the error, or its text, tells."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    return "DeltaConcurrentModificationException" in kinds or _CONFLICT.search(str(error)) is not None


def one_line(run: Callable[P, T]) -> Callable[P, T]:
    """A function whose exceptions of the JVM are ours; they keep the one beneath as their cause.

    Raises:
        MkdmError: in place of whatever Spark, Delta Lake, Hadoop or py4j raises.
    """

    @wraps(run)
    def told_run(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return run(*args, **kwargs)
        except FOREIGN as error:
            raise told(error) from error

    return told_run


def _causes(error: BaseException) -> Iterator[tuple[list[str], str]]:
    """From the outermost to the root: conditions and class of each exception, and its text."""
    java: Any = _java_exception(error)
    if java is None:  # over Spark Connect, or raised by py4j itself
        yield from _told_by_text(str(error))
    while java is not None:
        text = str(java.getMessage() or "").strip()
        yield [*_CONDITION.findall(text.partition("\n")[0]), str(java.getClass().getName())], text
        java = java.getCause()


def _java_exception(error: BaseException) -> Any:
    if is_remote_only():
        return None
    from cluster.classic import java_exception

    return java_exception(error)


def _told_by_text(text: str) -> Iterator[tuple[list[str], str]]:
    """The same where only a text came: over Spark Connect it has the class, and behind it perhaps Java's stack."""
    first = text.strip().partition("\n")[0]
    yield [*_CONDITION.findall(first), *_CLASS.findall(first)], text
    for name, cause in _CAUSE.findall(text):
        yield [*_CONDITION.findall(cause), name], cause


def _plain(text: str) -> str:
    """The sentence of a Java exception: no class names or conditions before it, no stack or advice behind it."""
    return re.sub(r" SQLSTATE: \w+$", "", _BEFORE.sub("", text.strip().partition("\n")[0])).strip().rstrip(".:")
