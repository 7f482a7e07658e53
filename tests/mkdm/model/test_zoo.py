import pytest

from mkdm.errors import ConfigError
from mkdm.model.zoo import Teacher, read_zoo


def test_folders_are_taken_from_where_the_file_lies(tmp_path):
    (tmp_path / "zoo.yaml").write_text(
        "teachers:\n- {id: a, model: m/a, max_tokens: 96}\n- {id: b, model: '/m/b,s3a://m/c'}\n"
    )
    assert read_zoo(tmp_path / "zoo.yaml") == [Teacher("a", f"{tmp_path}/m/a", 96), Teacher("b", "/m/b,s3a://m/c")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1", "cannot read the zoo"),
        ("teachers: []", "holds no list of teachers: it must look like"),
        ("teachers: [{id: a}]", "teacher 1 of .* has id; it takes id, model, max_tokens, precision"),
        ("teachers: [{id: a, model: m, length: 3}]", "has id, model, length; it takes"),
        ("teachers: [{id: a, model: m}, {id: a, model: n}]", "several teachers with the id a"),
        ("teachers: [{id: 'a,b', model: m}]", "the id 'a,b': it must be a text without a comma"),
        ("teachers: [{id: a, model: m, max_tokens: 0}]", "max_tokens 0: it must be a number of at least 1"),
        ("teachers: [{id: a, model: m, precision: int3}]", "precision 'int3': choose one of auto"),
    ],
)
def test_wrong_zoo_is_refused_with_the_entry_at_fault(tmp_path, content, message):
    (tmp_path / "zoo.yaml").write_text(content)
    with pytest.raises(ConfigError, match=message):
        read_zoo(tmp_path / "zoo.yaml")
