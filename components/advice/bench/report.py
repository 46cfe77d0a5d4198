"""The report of a bench: what ``reflux.components.advice.bench.device`` measured on a machine, checked."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from reflux.components.core.errors import UserError
from reflux.components.core.params.registry import DEVICE

FORMAT = 1
Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Speed(_Part):
    """A file's time at a number of threads and of images at once.

    Attributes:
        threads, batch: these numbers.
        ms_p50, ms_p95: on the wall, for one batch.
        cpu_ms: of the processor, the median.
        cpu: processor time in multiples of the first file's, with its interval from ``cpu_low`` to ``cpu_high``.
    """

    threads: Count
    batch: Count
    ms_p50: Positive
    ms_p95: Positive
    cpu_ms: Positive
    cpu: Positive
    cpu_low: Positive
    cpu_high: Positive


class Row(_Part):
    """A file.

    Attributes:
        name: for people.
        runtime, runtime_version: that ran it.
        sha256, size_bytes: of the file.
        accuracy: on the images.
        agreement: the share of the images on which it predicts what the first file predicts.
        reproduced: the share on which it predicts what it predicted where the folder was made.
        load_ms, peak_mb: of a process that does nothing else: processor time from the file to its first logits, and the
            most memory, where the system counts it.
        speeds: one for each number of threads and images.
    """

    name: str
    runtime: str
    runtime_version: str
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    size_bytes: Count
    accuracy: Share
    agreement: Share
    reproduced: Share
    load_ms: Positive
    peak_mb: Positive | None
    speeds: Annotated[tuple[Speed, ...], Field(min_length=1)]


class Report(_Part):
    """What was measured on a machine.

    Attributes:
        project: whose files they are.
        device: the machine's name.
        machine, system, python: what it is and runs, as Python's ``platform`` says.
        images: their number, of the validation split.
        rows: one for each file; processor times are in multiples of the first one's.
    """

    format: Literal[1]
    project: str
    device: Annotated[str, Field(pattern=DEVICE)]
    measured_at: AwareDatetime
    machine: str
    system: str
    python: str
    images: Count
    rows: Annotated[tuple[Row, ...], Field(min_length=1)]


def read(path: Path) -> Report:
    """Read a report.

    Raises:
        UserError: there is none, or it is damaged.
    """
    try:
        return Report.model_validate_json(path.read_bytes())
    except (FileNotFoundError, IsADirectoryError):
        raise UserError(f"{path} is not a file: give the one that bench.py wrote on the device.") from None
    except ValidationError as error:
        raise UserError(
            f"{path} is no report of bench.py ({_wrong(error)}): give the file that it wrote, unchanged."
        ) from None


def _wrong(error: ValidationError) -> str:
    """What is wrong first, in a clause."""
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"]))
    if not place:
        return "it is not valid JSON" if first["type"] == "json_invalid" else "it is no JSON object"
    words = {"missing": "is missing", "extra_forbidden": "is not part of one"}
    return f"{place} {words.get(first['type'], 'has a wrong value')}"


def slower(rows: Sequence[Row]) -> list[tuple[Row, list[Speed]]]:
    """The files that surely take more processor time than the first one, with the settings at which they do."""
    each = [(row, [speed for speed in row.speeds if speed.cpu_low > 1]) for row in rows[1:]]
    return [(row, speeds) for row, speeds in each if speeds]
