from reflux.components.core.params.comments import comments_of, with_comments
from reflux.components.core.params.file import load_params, override_params
from tests.workspaces import ROOT

TEXT = """\
# The head.
student:
  model: resnet8_slim
  steps: 1500               # how many
  when: now                 # now | later, of which the second
                            # goes on here
  text: "a # b"   # old
  augment: {shift: 0.1, flip: true}
  # What this is about.
  last: 1

# The next one.
gates:
  accuracy: {min: 0.8}
  size:
    max: 3
"""


def test_a_comment_takes_the_place_of_the_one_that_was_there_and_of_its_other_lines():
    new = with_comments(TEXT, {"student.steps": "because", "student.when": "so", "student.text": "words"})
    assert new == TEXT.replace("# how many", "# because").replace(
        "# now | later, of which the second\n                            # goes on here", "# so"
    ).replace('"a # b"   # old', '"a # b"             # words')


def test_params_of_one_line_share_a_comment_in_which_nothing_is_said_twice():
    names = {"student.augment.shift": "a", "student.augment.flip": "b", "student.augment": "a"}
    assert "  augment: {shift: 0.1, flip: true}  # a; b\n  # What this is about.\n" in with_comments(TEXT, names)


def test_a_long_comment_goes_on_in_its_column_and_is_replaced_as_a_whole():
    long = with_comments(TEXT, {"student.last": "word " * 40, "gates.size": "a size"})
    lines = long.splitlines()
    begin = next(number for number, line in enumerate(lines) if line.startswith("  last: 1"))
    assert [line.index("#") for line in lines[begin : begin + 3]] == [28, 28, 28]
    assert max(map(len, lines)) <= 120
    assert lines[begin + 3 : begin + 5] == ["", "# The next one."]
    assert "  size:                     # a size\n    max: 3\n" in long
    assert with_comments(long, {"student.last": "short", "gates.size": "x"}) == with_comments(
        TEXT, {"student.last": "short", "gates.size": "x"}
    )


def test_the_projects_params_take_values_with_comments_and_a_second_writing_replaces_the_first(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text((ROOT / "params.yaml").read_text())
    before = path.read_text().splitlines()
    values = ["registry.gates.worst_class_recall=null", "distill.method={name: kd, temperature: 4.0}", "seed=0"]
    for said in ("the first reason, which is rather long, " * 5, "the second reason"):
        comments = {value.partition("=")[0]: said for value in values}
        params = override_params(values, path, comments)
    assert params == load_params(path)
    assert params.registry.gates.worst_class_recall is None
    changed = [new for old, new in zip(before, path.read_text().splitlines(), strict=True) if old != new]
    assert [line.partition("#")[0].strip() for line in changed] == [
        *("seed: 0", "method: {name: kd, temperature: 4.0}", "worst_class_recall: null")
    ]
    assert all(line.endswith("# the second reason") for line in changed)
    assert override_params(["registry.gates.worst_class_recall.min=0.5"], path).registry.gates.worst_class_recall


def test_the_comments_of_a_file_are_read_by_param():
    assert comments_of(TEXT) == {
        "student": "The head.",
        "student.steps": "how many",
        "student.when": "now | later, of which the second goes on here",
        "student.text": "old",
        "student.last": "What this is about.",
        "gates": "The next one.",
    }


def test_a_comment_that_was_put_is_read_again():
    names = {"student.augment": "shifts and flips", "student.last": "word " * 40, "gates.size": "a size"}
    read = comments_of(with_comments(TEXT, names))
    assert read["student.augment"] == "shifts and flips"
    assert read["student.last"] == " ".join(["What this is about.", *["word"] * 40])
    assert read["gates.size"] == "a size"
