"""Things that are registered by name, next to the code that makes them: losses, networks, formats, boards."""

from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


class Registry(dict[str, T]):
    """Entries by name, in the order of their registration; a name is taken only once.

    Args:
        things: what the names stand for, in the plural, for messages.
    """

    def __init__(self, things: str, **entries: T) -> None:
        super().__init__(entries)
        self.things = things

    def add(self, name: str, entry: T) -> None:
        """Register an entry.

        Raises:
            ValueError: the name is taken.
        """
        if name in self:
            raise ValueError(f"Two {self.things} are named {name}.")
        self[name] = entry

    def registers(self, name: str, entry: Callable[[Any], T]) -> Callable[[F], F]:
        """Make a decorator that registers the ``entry`` of a function and returns the function as it is."""

        def register(function: F) -> F:
            self.add(name, entry(function))
            return function

        return register
