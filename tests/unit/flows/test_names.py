"""Names in flows/: Prefect puts the folder of a deployment's file first on ``sys.path``, so they shadow any other."""

import sys
from importlib.machinery import PathFinder
from pathlib import Path

import pytest

FLOWS = Path(__file__).parents[3] / "flows"
NAMES = sorted({path.stem for path in FLOWS.iterdir() if not path.name.startswith("_")})


@pytest.mark.parametrize("name", NAMES)
def test_no_name_in_flows_hides_a_library(name):
    elsewhere = [folder for folder in sys.path if Path(folder or ".").resolve() not in (FLOWS, FLOWS.parent)]
    assert PathFinder.find_spec(name, elsewhere) is None
