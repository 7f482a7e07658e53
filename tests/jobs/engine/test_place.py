"""A table's place, by path or by name, as SQL writes it."""

import pytest

from jobs.engine.locations import names_schema
from jobs.engine.place import Place, literal
from mkdm.errors import ConfigError


@pytest.mark.parametrize(
    ("location", "in_catalog", "sibling"),
    [
        ("main.qa.pairs", True, "main.qa.scores"),
        ("qa.pairs", True, "qa.scores"),
        ("main.`q.a`.pairs", True, "main.`q.a`.scores"),
        ("warehouse/pairs", False, "warehouse/scores"),
        ("s3a://bucket/w/pairs/", False, "s3a://bucket/w/scores"),
        ("pairs", False, "./scores"),
    ],
)
def test_a_sibling_is_in_the_same_folder_or_schema(location, in_catalog, sibling):
    place = Place(None, location)
    assert place.in_catalog == in_catalog
    assert place.sibling("scores") == Place(None, sibling)


def test_names_in_a_catalog_are_quoted_part_by_part():
    assert Place(None, "main.`q.a`.pairs").sql_name == "`main`.`q.a`.`pairs`"


def test_a_folder_with_a_backtick_is_refused():
    with pytest.raises(ConfigError, match="backtick"):
        Place(None, "ware`house/pairs")


def test_a_literal_cannot_be_left():
    assert literal("it's \\ all") == r"'it\'s \\ all'"


@pytest.mark.parametrize(("root", "yes"), [("main.qa", True), ("main.`q a`", True), ("main", False), ("./w", False)])
def test_a_schema_is_told_from_a_folder(root, yes):
    assert names_schema(None, root) == yes
