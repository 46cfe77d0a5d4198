"""How a stage of the pipeline ended."""

from enum import StrEnum


class StageOutcome(StrEnum):
    """What DVC did for a stage: executed its command, or found or restored its results."""

    RAN = "ran"
    CACHED = "cached"


class StageFailed(Exception):
    """A stage, or a step around the stages, that failed.

    Args:
        stage: its name.
        sentence: the reason, in the stage's own words where it left any.
        user_error: only the user can fix it.
        transient: trying again may help.
        tail: the last lines it printed.
    """

    def __init__(
        self, stage: str, sentence: str, user_error: bool = False, transient: bool = False, tail: tuple[str, ...] = ()
    ) -> None:
        super().__init__(f"{stage}: {sentence}")
        self.stage, self.sentence, self.tail = stage, sentence, tail
        self.user_error, self.transient = user_error, transient
