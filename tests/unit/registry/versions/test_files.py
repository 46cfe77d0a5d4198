from pathlib import Path

import pytest

from reflux.components.core.errors import UserError
from reflux.components.registry.versions.files import VersionFiles


def test_a_version_in_a_format_of_a_newer_release_is_one_sentence():
    version = VersionFiles(7, Path("x"), "0" * 64, {"file": "model.qnn", "classes": ["a"]})
    with pytest.raises(UserError) as refused:
        version.network()
    assert str(refused.value) == (
        "Version 7 ships a .qnn file, which this release of Reflux does not know: install the release that registered "
        "it."
    )


def test_a_version_that_does_not_name_its_file_is_of_a_release_that_shipped_one_format():
    assert VersionFiles(7, Path("x"), "0" * 64, {"classes": ["a"]}).file == Path("x/model.onnx")
