import pytest

from benchmarks.harness import since


@pytest.fixture
def history() -> None:
    """The commits that results and pages cite."""
    try:
        since.is_known("HEAD")
    except since.NoHistoryError as error:
        pytest.skip(f"the history is not here: {error}")
