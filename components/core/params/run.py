"""The section ``run``: how and where a result is computed."""

import re
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from reflux.components.core.params.section import AboveZero, Section


class Run(Section):
    """Settings of how and where a result is computed; no dependency of any stage."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = Field(0, ge=0, description="CPU threads of one stage; 0 leaves it to torch")
    workers: int = Field(0, ge=0, description="processes that decode encoded images; 0 decodes in a thread")
    compile: bool = False
    deterministic: bool = False
    checkpoint_every_s: AboveZero = 60
    launcher: Literal["local", "torchrun"] = "local"
    nproc_per_node: int | str = 1
    nnodes: int | str = 1
    rdzv_endpoint: str | None = Field(None, validate_default=True)
    max_restarts: int = Field(3, ge=0)
    lost_after_s: AboveZero = 300
    placement: Literal["one-worker", "two-pools"] = "one-worker"
    retrain_on_upgrade: bool = True

    @field_validator("nproc_per_node", "nnodes")
    @classmethod
    def needs_the_launcher(cls, value: int | str, info: ValidationInfo) -> int | str:
        if value != 1 and info.data.get("launcher") == "local":
            raise ValueError("several processes need run.launcher = torchrun")
        return value

    @field_validator("nproc_per_node")
    @classmethod
    def is_a_number_of_processes(cls, value: int | str) -> int | str:
        if value != "auto" and (isinstance(value, str) or value < 1):
            raise ValueError("it is a number of processes, or auto")
        return value

    @field_validator("nnodes")
    @classmethod
    def is_a_number_of_machines(cls, value: int | str) -> int | str:
        match = re.fullmatch(r"(\d+)(?::(\d+))?", str(value))
        if not match or not 1 <= int(match[1]) <= int(match[2] or match[1]):
            raise ValueError("it is a number of machines, or the fewest and the most, such as 1:2")
        return value

    @field_validator("rdzv_endpoint")
    @classmethod
    def is_there_for_several_machines(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and not re.fullmatch(r"[^\s:]+:\d+", value):
            raise ValueError("it must be host:port, such as node1:29400")
        nodes = info.data.get("nnodes", 1)
        if value is None and nodes != 1:
            raise ValueError(f"run.nnodes = {nodes} needs the host:port of one of the machines, where they all meet")
        return value
