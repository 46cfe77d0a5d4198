import pytest

from reflux.components.stages.ingest.ingest import Storage, keeps_encoded


@pytest.mark.parametrize(
    ("storage", "decoded_max_gb", "encoded"),
    [
        ("auto", 0.0012, False),
        ("auto", 0.00119, True),
        ("decoded", 0, False),
        ("encoded", 8, True),
    ],
)
def test_auto_keeps_images_encoded_when_they_are_more_than_was_allowed(
    storage: Storage, decoded_max_gb: float, encoded: bool
) -> None:
    assert keeps_encoded(storage, 100, (20, 200, 3), decoded_max_gb) == encoded
