"""Params files of older releases: lines move, comments stay."""

import pytest
from ruamel.yaml import YAML

from reflux.components.core.params.migration import ByHand, cut, extended, pasted

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


def test_a_block_goes_where_it_ships():
    assert cut(NEW, "validate") == ["# About the checks.", "validate:", "  max_class_shift: 0.1      # how far"]
    rest = NEW.replace("# About the checks.\nvalidate:\n  max_class_shift: 0.1      # how far\n\n", "")
    order = list(YAML(typ="safe").load(NEW))
    assert pasted(rest, "validate", cut(NEW, "validate"), order) == NEW
    with pytest.raises(ByHand):
        cut("a: {b: 1, c: 2}\n", "a.c")
