"""Params files of older releases: lines move, comments stay."""

import pytest
from ruamel.yaml import YAML

from reflux.components.core.errors import UserError
from reflux.components.core.params.migration import ByHand, cut, extended, migrated, pasted, without

OLD = """\
# The head.

ingest:
  source: data/x            # the pictures
  max_unreadable: 0.01      # share of images
                            # that can't be read
  slices: []

# About the checks.
validate:
  min_per_class: 20         # of each
  # Narrower images count as broken.
  min_size_px: 9            # pixels
  max_size_px: 20000
  max_class_shift: 0.1      # how far

distill:
  temperature: 4.0          # of both
  label_weight: 0.1

compress:
  int8: true

seed: 0                     # of all
"""
NEW = """\
# The head.

ingest:
  source: data/x            # the pictures
  max_quarantined: 0.01     # share of images
                            # that can't be read
  slices: []
  # Narrower images count as broken.
  min_size_px: 9            # pixels

# About the checks.
validate:
  max_class_shift: 0.1      # how far

distill:
  method: {name: kd, temperature: 4.0}  # of both
  label_weight: 0.1

seed: 0                     # of all
"""


def test_params_get_their_new_names_and_places_with_their_comments():
    text, changes = migrated(OLD, "params.yaml")
    assert text == NEW
    assert [str(change) for change in changes] == [
        "compress.int8 is gone: the int8 file is always made, and compress.ships chooses",
        "distill.temperature is distill.method now",
        "ingest.max_unreadable is ingest.max_quarantined now",
        "validate.max_size_px is gone: what can be decoded can be trained on",
        "validate.min_per_class is gone: few images of a class are a warning",
        "validate.min_size_px is ingest.min_size_px now",
    ]
    assert migrated(NEW, "params.yaml") == (NEW, [])


@pytest.mark.parametrize(
    ("text", "new"),
    [
        ("ingest: {max_unreadable: 0.5, slices: []}  # both\n", "ingest: {max_quarantined: 0.5, slices: []}  # both\n"),
        ("validate: {min_size_px: 8}\ningest:\n  slices: []\n", None),
        ("validate:\n  min_size_px: 8\ningest: {slices: []}\n", None),
        ("validate:\n  min_size_px: 8\n", None),
        ("ingest:\n  max_unreadable: 0.1\n  max_quarantined: 0.2\n", None),
        ("compress: {int8: true, ships: onnx}\n", None),
    ],
)
def test_what_lines_can_not_say_is_one_sentence_that_says_what_to_write(text, new):
    if new:
        assert migrated(text, "params.yaml")[0] == new
        return
    with pytest.raises(UserError, match=r"^params.yaml: .* can't be changed automatically here: (write it|delete it)"):
        migrated(text, "params.yaml")


SHIPPED = """\
ingest:
  source: data/x
  group: null               # a column
                            # of patients
  slices: []                # columns

# Searches students.
tune:
  space: {}                 # knobs

# The last.
monitor:
  alpha: 0.01
"""


def test_params_that_an_older_file_lacks_are_added_with_their_comments_where_they_ship():
    text = "ingest:\n  source: data/y\n  slices: [camera]\n\nmonitor:\n  alpha: 0.05\n"
    values = {"ingest": {"source": "data/y", "group": None, "slices": ["camera"]}, "tune": {"space": {}}}
    values["monitor"] = {"alpha": 0.05}
    longer, added = extended(text, SHIPPED, values, known=())
    assert added == ["ingest.group", "tune"]
    assert longer == (
        "ingest:\n  source: data/y\n  group: null               # a column\n                            # of patients\n"
        "  slices: [camera]\n\n# Searches students.\ntune:\n  space: {}                 # knobs\n\n"
        "monitor:\n  alpha: 0.05\n"
    )
    assert extended(longer, SHIPPED, values, known=()) == (longer, [])


def test_what_someone_left_out_or_what_would_change_a_result_is_not_added():
    text = "ingest:\n  source: data/y\n  slices: []\n"
    values = {
        "ingest": {"source": "data/y", "group": None, "slices": []},
        "tune": {"space": {}},
        "monitor": {"alpha": 1},
    }
    assert extended(text, SHIPPED, values, known={"ingest.group": None, "tune.space": {}}) == (text, [])


def test_a_block_can_be_taken_out_and_put_back():
    assert cut(NEW, "validate") == ["# About the checks.", "validate:", "  max_class_shift: 0.1      # how far"]
    rest = without(NEW, "validate")
    order = list(YAML(typ="safe").load(NEW))
    assert pasted(rest, "validate", cut(NEW, "validate"), order) == NEW
    with pytest.raises(ByHand):
        cut("a: {b: 1, c: 2}\n", "a.c")
