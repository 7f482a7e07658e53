"""Finds credentials in text, such as keys in a URI, so that nothing we print, raise or store has them."""

import re

HIDDEN = "***"
_SAFE_USER = r"(?:abfss?|wasbs?|gs|hdfs)://[^/:@\s]+@"  # container@account is no login
_LOGIN = re.compile(
    r"(?i)(?<![a-z0-9+.-])(?!" + _SAFE_USER + r")([a-z][a-z0-9+.-]*://)(?![^/@\s]*:\d+/)([^/@\s:]*:[^@\s]*|[^/@\s]+)@"
)
"""USER:PASSWORD@ or TOKEN@ after a scheme. A secret key may have slashes; a port, which is digits, is no password."""
_QUERY = re.compile(
    r"(?i)([?&;](?:sig|signature|sas|key|secret|password|pwd|[\w.-]*token|access_?key(?:_?id)?|credentials?"
    r"|awsaccesskeyid|x-(?:amz|goog)-(?:signature|credential|security-token))=)([^&\s'\"<>]+)"
)
"""What signs a query string: SAS, pre-signed URLs of S3 and GCS, tokens."""
_SETTING = re.compile(
    r"(?i)([\w.-]*(?:secret|password|passwd|access[._-]?key|account[._-]?key|session[._-]?token|auth[._-]?token"
    r"|sas[._-]?token|fixed[._-]?token)[\w.-]*[\"']?\s*[=:]\s*[\"']?)([^\s,;\"')]+)"
)
"""NAME=VALUE of Spark's and Hadoop's settings and of environment variables."""
_BEARER = re.compile(r"(?i)\b((?:bearer|basic)\s+)([\w.~+/=-]{8,})")


def hide_credentials(text: str) -> str:
    """The text with *** in place of each credential."""
    text = _LOGIN.sub(rf"\g<1>{HIDDEN}@", text)
    for pattern in (_QUERY, _SETTING, _BEARER):
        text = pattern.sub(rf"\g<1>{HIDDEN}", text)
    return text


def has_credentials(location: str) -> bool:
    """Whether a path or URI carries a login or a signature."""
    return "://" in location and bool(_LOGIN.search(location) or _QUERY.search(location))
