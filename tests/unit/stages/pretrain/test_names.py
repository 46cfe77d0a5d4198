"""The file of the classes' words and of prompts."""

from pathlib import Path

import pytest

from reflux.components.core.errors import UserError
from reflux.components.stages.pretrain.names import read_names


def test_words_come_in_the_order_of_the_classes(tmp_path: Path):
    file = tmp_path / "classes.yaml"
    file.write_text("classes:\n  1: trousers\n  bag: handbag\n  shoe: sneaker\nprompts: ['a {}.', 'two of {}']\n")
    assert read_names(file, ("bag", "1")) == (["handbag", "trousers"], ["a {}.", "two of {}"])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "{classes: {bag: handbag}, prompts: ['a {}']}",
            "has no words for shoe_left: .* such as `shoe_left: shoe left`",
        ),
        ("{classes: {bag: 3}, prompts: ['a {}']}", "has no words for the classes"),
        ("[bag, shoe]", "has no words for the classes"),
        ("{classes: {bag: handbag}}", "has no prompts: give it `prompts`"),
        ("{classes: {bag: handbag}, prompts: [a bag]}", "has no prompts"),
        ("{classes: {bag: handbag}, prompts: ['a {} of {0}']}", "has no prompts"),
        ("{classes: [", "is not valid YAML"),
    ],
)
def test_a_file_that_does_not_name_the_classes_is_one_sentence(tmp_path: Path, text: str, sentence: str):
    file = tmp_path / "classes.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=sentence):
        read_names(file, ("bag", "shoe_left"))
