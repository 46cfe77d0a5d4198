"""A local stack of their own for the tests of a file, with the retraining deployed."""

from collections.abc import Iterator

import pytest

from tests.e2e.stack import LocalStack, deploy, local_stack, team_repository


@pytest.fixture(scope="module")
def stack() -> Iterator[LocalStack]:
    with local_stack() as started:
        yield started


@pytest.fixture(scope="module")
def deployment(stack) -> str:
    return deploy(stack, team_repository(stack))
