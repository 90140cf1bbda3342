"""Names in a YAML file stay what was typed, and files that are written are read back."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from vision_mtl.config.resolve import resolve
from vision_mtl.config.yaml_files import load_yaml, read_config
from vision_mtl.core.errors import UserError

WORDS = ["no", "yes", "on", "off", "y", "null", "~", "true", "7", "007", "1.0", "2024-01-01", "1:30", "0x10", "nan"]
text = st.one_of(st.sampled_from(WORDS), st.text(st.characters(exclude_characters="\x85"), max_size=6))


def test_names_are_words() -> None:
    found = load_yaml("".join(f"{word}: {{source: x}}\n" for word in WORDS))
    assert list(found) == WORDS


def test_a_task_may_be_called_no(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("tasks:\n  no: {source: folder/a}\n  7: {source: folder/b, label: 007}\n")
    config = resolve("finetune", read_config(tmp_path / "c.yaml"), {})
    assert list(config.tasks) == ["no", "7"] and config.tasks["7"].label == "007"
    assert list(resolve("finetune", load_yaml(config.to_yaml()), {}).tasks) == ["no", "7"]
    assert list(resolve("finetune", yaml.safe_load(config.to_yaml()), {}).tasks) == ["no", "7"]  # any YAML library


def test_numbers_are_what_a_person_reads() -> None:
    assert load_yaml("[010, 1:30, 2024-01-01, 10, 1_000, 0x10, 1.5, 1e-3]") == [
        "010", "1:30", "2024-01-01", 10, 1000, 16, 1.5, "1e-3",
    ]  # fmt: skip
    assert resolve("finetune", {"seed": "010"}, {}).seed == 10


@pytest.mark.parametrize("word", ["no", "on", "12", "1.0", "true"])
def test_a_word_that_is_no_text_says_how_to_write_it(word: str) -> None:
    file = load_yaml(f"tasks: {{x: {{source: folder/a, label: {word}}}}}")
    with pytest.raises(UserError, match=r"tasks\.x\.label must be text or null; found .*: put it into quotes\."):
        resolve("finetune", file, {})
    quoted = load_yaml(f"tasks: {{x: {{source: folder/a, label: '{word}'}}}}")
    assert resolve("finetune", quoted, {}).tasks["x"].label == word


@pytest.mark.parametrize("content", ["a: 1\na: 2\n", "tasks: {x: {source: a}, x: {source: b}}", "{1: a, '1': b}"])
def test_a_name_that_is_given_twice_is_an_error(content: str, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(content)
    with pytest.raises(UserError, match=r"is given twice .*line 1|is given twice .*line 2"):
        read_config(tmp_path / "c.yaml")


def test_anchors_and_merged_mappings_work() -> None:
    found = load_yaml("a: &base {no: 1, x: 2}\nb: {<<: *base, x: 3}")
    assert found == {"a": {"no": 1, "x": 2}, "b": {"no": 1, "x": 3}}


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(text, st.one_of(text, st.booleans(), st.integers(), st.floats(allow_nan=False), st.none())))
def test_what_is_written_is_read_back(content: dict[str, object]) -> None:
    assert load_yaml(yaml.safe_dump(content, allow_unicode=True)) == content


def test_a_utf16_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("seed: 3\n", encoding="utf-16")
    assert read_config(tmp_path / "c.yaml") == {"seed": 3}
