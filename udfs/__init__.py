"""Pandas UDFs: they load a model once per executor, call mkdm's scorer, and turn failures into error columns."""
