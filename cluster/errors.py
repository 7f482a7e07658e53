"""The error of this folder."""


class ClusterError(Exception):
    """Spark, Java or Delta's JARs are missing or unfit. The text says what to install or pass, on one line."""
