import pytest

from mkdm.errors import ConfigError
from mkdm.model.prompting import Prompting
from mkdm.model.zoo import Teacher, read_zoo


def test_folders_are_taken_from_where_the_file_lies(tmp_path):
    (tmp_path / "zoo.yaml").write_text(
        "teachers:\n- {id: a, model: m/a, max_tokens: 96}\n- {id: b, model: '/m/b,s3a://m/c'}\n"
    )
    assert read_zoo(tmp_path / "zoo.yaml") == [Teacher("a", f"{tmp_path}/m/a", 96), Teacher("b", "/m/b,s3a://m/c")]


def test_entry_tells_how_a_teacher_is_asked(tmp_path):
    (tmp_path / "zoo.yaml").write_text(
        "teachers:\n"
        "- {id: a, model: /m, backend: torch, prompt: 'So?', template: '{prompt}{query} {passage}', label: 'yes'}\n"
        "- {id: b, model: /n, label: 2}\n"
    )
    first, second = read_zoo(tmp_path / "zoo.yaml")
    assert (first.backend, second.backend) == ("torch", None)
    assert first.prompting == Prompting("So?", "{prompt}{query} {passage}", "yes")
    assert second.prompting == Prompting(label="2")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1", "cannot read the zoo"),
        ("teachers: []", "holds no list of teachers: it must look like"),
        ("teachers: [{id: a}]", "teacher 1 of .* has id; it takes id, model, max_tokens, precision, backend, prompt"),
        ("teachers: [{id: a, model: m, length: 3}]", "has id, model, length; it takes"),
        ("teachers: [{id: a, model: m}, {id: a, model: n}]", "several teachers with the id a"),
        ("teachers: [{id: 'a,b', model: m}]", "the id 'a,b': it must be a text without a comma"),
        ("teachers: [{id: a, model: m, max_tokens: 0}]", "max_tokens 0: it must be a number of at least 1"),
        ("teachers: [{id: a, model: m, backend: jax}]", "backend 'jax': choose one of auto, torch, torch-compile"),
        ("teachers: [{id: a, model: m, label: yes}]", "label True: it must be a text; quote yes, no, true and false"),
        ("teachers: [{id: a, model: m, prompt: ''}]", "the prompt '': it must be a text"),
        ("teachers: [{id: a, model: m, template: [1]}]", r"the template \[1\]: it must be a text"),
        ("teachers: [{id: a, model: m, precision: int3}]", "precision 'int3': choose one of auto"),
    ],
)
def test_wrong_zoo_is_refused_with_the_entry_at_fault(tmp_path, content, message):
    (tmp_path / "zoo.yaml").write_text(content)
    with pytest.raises(ConfigError, match=message):
        read_zoo(tmp_path / "zoo.yaml")
