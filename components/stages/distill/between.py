"""The networks between a teacher and its student, where a schedule wants some."""

from reflux.components.core.data.shards import Dataset
from reflux.components.core.errors import UserError
from reflux.components.core.params.distill import BornAgain, Schedule, TeacherAssistant
from reflux.components.modalities.image.models.pixel_model import network, parameter_count


def networks_between(schedule: Schedule | None, student: str) -> list[str]:
    """List the networks between teacher and student: each learns from the one before it."""
    match schedule:
        case TeacherAssistant():
            return list(schedule.assistants)
        case BornAgain():
            return [student] * (schedule.generations - 1)
    return []


def seed_before(seed: int, number: int) -> int:
    """The seed of the number-th network before the student, counted from 1; the student has the run's own."""
    return (seed + 1000 * number) % 2**32


def refuse_to_grow(parameters: int, assistants: list[str], dataset: Dataset) -> None:
    """Check that no assistant is larger than the network it learns from; the first learns from the teacher.

    Raises:
        UserError: one is larger.
    """
    teacher = "the teacher"
    for name in assistants:
        own = parameter_count(network(name, len(dataset.classes), dataset.channels))
        if own > parameters:
            raise UserError(
                f"The teacher assistant {name} has {own:,} parameters, more than {teacher} with {parameters:,}: name "
                "a smaller network in distill.method's assistants, or order them from large to small."
            )
        teacher, parameters = name, own
