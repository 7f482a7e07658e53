"""The MKDM student and everything about it that needs no Spark: model, losses, scorer, training."""

__version__ = "0.7.0"
