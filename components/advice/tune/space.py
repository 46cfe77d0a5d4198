"""The knobs as distributions of Optuna, and what their values change in the params."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    distribution_to_json,
)

from reflux.components.core.errors import UserError
from reflux.components.core.params.distill import METHODS, LayerLoss, Loss, Method
from reflux.components.core.params.sections import Params
from reflux.components.modalities.image.models.pixel_model import check_timm_name
from reflux.components.modalities.image.models.small_nets import base_and_width, small_net, with_width

if TYPE_CHECKING:
    from optuna.trial import Trial

WIDTH_STEP = 0.125  # networks in between differ by few channels, and each takes seconds to export and measure
_DIGITS = 3  # of a number that is drawn: more say nothing, and none can read them
_KNOBS_OF_STUDENT = {"model", "image_size", "lr", "weight_decay", "steps", "eval_every", "ema_decay"}
_LOG = ("temperature", "lr", "weight_decay", "steps")

Values = Mapping[str, Any]
Changes = dict[str, Any]  # by the dotted name of a param


def distributions(params: Params) -> dict[str, BaseDistribution]:
    """The distribution of each knob, narrowed as ``tune.space`` says.

    Raises:
        UserError: a network or a method that it names is unknown, or the method wants a live teacher.
    """
    space, student = params.tune.space, params.student
    present, given = present_values(params), space.model_fields_set
    sizes = space.image_size or (student.image_size, max(1, round(0.75 * student.image_size)))
    methods = space.method or (present["method"],)
    for name in methods:
        _check_method(name, params)
    networks = space.network if not params.student_is_pretrained else (present["network"],)
    for name in networks:
        if small_net(name) is None:
            check_timm_name(name)
    choices = {"network": networks, "image_size": sizes, "method": methods, "ema_decay": space.ema_decay}
    choices |= {"ships": space.ships}
    steps = space.steps or (present["steps"] / 2, present["steps"])
    ranges = {"width": space.width, "label_weight": space.label_weight, "lr": space.lr, "mixup": space.mixup}
    ranges |= {"weight_decay": space.weight_decay, "steps": steps}
    if any(_tempered(name, params) for name in methods):
        ranges["temperature"] = space.temperature
    named = [_entry(name, params) for name in methods]
    drawn: dict[str, BaseDistribution] = {}
    for name, listed in choices.items():
        held = present.get(name) if name not in given else None
        drawn[name] = CategoricalDistribution(tuple(dict.fromkeys([*listed, *([held] if held is not None else [])])))
    for name, (low, high) in ranges.items():
        held = present.get(name, low) if name not in given else low
        drawn[name] = _range(name, min(low, held), max(high, held))
    if params.student_is_pretrained:  # they are of one width
        drawn["width"] = _range("width", present["width"], present["width"])
    elif not any(small_net(name) for name in drawn["network"].choices):  # type: ignore[attr-defined]
        del drawn["width"]
    if _mixes_in_store(params) or any(_sees_whole_images(entry) for entry in (*named, *params.distill.method)):
        drawn["mixup"] = _range("mixup", present["mixup"], present["mixup"])
    return drawn


def _range(name: str, low: float, high: float) -> BaseDistribution:
    if name == "width" and low < high:
        steps = int((high - low) / WIDTH_STEP + 1e-9)
        return FloatDistribution(low, low + steps * WIDTH_STEP, step=WIDTH_STEP)
    return FloatDistribution(low, high, log=name in _LOG and low > 0)


def present_values(params: Params) -> dict[str, Any]:
    """The knobs' values that the present params have; a method with settings of its own keeps them."""
    student, distill = params.student, params.distill
    network, width = base_and_width(student.model)
    method = _own_method(params)
    values: dict[str, Any] = {"network": network, "width": width, "image_size": student.image_size, "method": method}
    values |= {name: getattr(student, name) for name in ("lr", "weight_decay", "ema_decay")}
    values["steps"] = student.steps * min(1.0, width)
    values |= {"label_weight": distill.label_weight, "mixup": student.augment.mixup, "ships": _ships(params)}
    if _tempered(method, params):
        values["temperature"] = _entry(method, params).temperature  # type: ignore[attr-defined]
    return values


def held(values: Values, drawn: Mapping[str, BaseDistribution]) -> dict[str, Any]:
    """Those of the values that the distributions hold."""
    return {name: value for name, value in values.items() if name in drawn and _holds(drawn[name], value)}


def narrower(values: Values, drawn: Mapping[str, BaseDistribution]) -> list[dict[str, Any]]:
    """The same student at each smaller width of the space, the widest first; none if its network has no width."""
    width = drawn.get("width")
    if not isinstance(width, FloatDistribution) or not width.step or not small_net(values.get("network", "")):
        return []
    below = round((values["width"] - width.low) / width.step)
    return [{**values, "width": values["width"] - step * width.step} for step in range(1, below + 1)]


def _holds(distribution: BaseDistribution, value: Any) -> bool:
    if isinstance(distribution, CategoricalDistribution):
        return value in distribution.choices
    assert isinstance(distribution, FloatDistribution)  # noqa: S101 - the only others made here
    if not distribution.low <= value <= distribution.high:
        return False
    step = distribution.step
    return step is None or abs((value - distribution.low) / step - round((value - distribution.low) / step)) < 1e-6


def suggest(trial: "Trial", drawn: Mapping[str, BaseDistribution]) -> dict[str, Any]:
    """Draw a value of each knob."""
    return {name: _suggest(trial, name, distribution) for name, distribution in drawn.items()}


def _suggest(trial: "Trial", name: str, distribution: BaseDistribution) -> Any:
    match distribution:
        case CategoricalDistribution():
            return trial.suggest_categorical(name, distribution.choices)
        case FloatDistribution(low=low, high=high, step=step):
            return trial.suggest_float(name, low, high, step=step, log=distribution.log)
    raise TypeError(distribution)


def changes(values: Values, params: Params) -> Changes:
    """What the values change in the params: those of the present student change nothing.

    A narrower network is trained for more steps: twice as many at half the width. Where the method is the present one
    it keeps the settings that ``params.yaml`` gives it, apart from its temperature.
    """
    student = params.student
    width = round(values["width"], 6) if small_net(values["network"]) else 1.0
    steps = max(1, round(values["steps"] / min(1.0, width)))
    every = max(1, round(student.eval_every * steps / student.steps))
    changed = {
        "student.model": with_width(values["network"], width) if small_net(values["network"]) else values["network"],
        "student.image_size": values["image_size"],
        "student.lr": _rounded(values["lr"]),
        "student.weight_decay": _rounded(values["weight_decay"]),
        "student.steps": steps,
        "student.eval_every": every,
        "student.ema_decay": values["ema_decay"],
        "student.augment.mixup": _rounded(values["mixup"]),
        "distill.label_weight": _rounded(values["label_weight"]),
        "compress.ships": values["ships"],
    }
    if changed["student.augment.mixup"] and not _mixes_in_store(params):
        # The teacher's own logits of mixed views are in no store; mixtures of those of plain views are.
        changed["distill.mixed_targets"] = "mixture"
    if _several(params) and values["method"] == _own_method(params):
        return changed
    entry = _settings(values["method"], params)
    if _tempered(values["method"], params):
        entry["temperature"] = _rounded(values["temperature"])
    return changed | {"distill.method": {"name": values["method"], **entry}}


def applied(params: Params, changed: Mapping[str, Any]) -> Params:
    """The params with the changes of :func:`changes`."""
    for name, value in changed.items():
        *parents, leaf = name.split(".")
        sections: list[Any] = [params]
        for parent in parents:
            sections.append(getattr(sections[-1], parent))
        new: Any = _method(value) if name == "distill.method" else value
        for section, key in zip(reversed(sections), reversed([*parents, leaf]), strict=True):
            new = section.model_copy(update={key: new})
        params = new
    return params


def _method(entry: Mapping[str, Any]) -> tuple[Method, ...]:
    return (METHODS[entry["name"]](**entry),)


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def _several(params: Params) -> bool:
    """True if ``distill.method`` has more than a loss: a modifier, a schedule, or several of them."""
    return len(params.distill.method) > 1


def _own_method(params: Params) -> str:
    return params.distill.method[0].name


def _entry(name: str, params: Params) -> Method:
    own = next((entry for entry in params.distill.method if entry.name == name), None)
    return own or METHODS[name](name=name)


def _settings(name: str, params: Params) -> dict[str, Any]:
    return _entry(name, params).model_dump(exclude_unset=True, exclude={"name"})


def _tempered(name: str, params: Params) -> bool:
    """True if the method has a temperature to search."""
    alone = not (_several(params) and name == _own_method(params))
    return alone and isinstance(getattr(_entry(name, params), "temperature", None), float)


def _mixes_in_store(params: Params) -> bool:
    """True if the stored soft labels are the teacher's logits of mixed views, which other shares of them lack."""
    augment = params.student.augment
    return params.distill.mixed_targets == "teacher" and augment.mixup + augment.cutmix > 0


def _sees_whole_images(entry: Method) -> bool:
    return isinstance(entry, Loss) and entry.whole_images


def _ships(params: Params) -> str:
    """The file that ships; where it is left to validation images, the smaller one, which they may choose."""
    return "onnx-int8" if params.compress.ships == "auto" else params.compress.ships


def _check_method(name: str, params: Params) -> None:
    if name not in METHODS:
        raise UserError(f"tune.space.method names {name}, and no method has this name: there are {', '.join(METHODS)}.")
    if name != _own_method(params) and (not issubclass(METHODS[name], Loss) or issubclass(METHODS[name], LayerLoss)):
        raise UserError(
            f"tune.space.method names {name}, which does not learn from stored soft labels alone: name losses of "
            "logits, such as kd, dkd or dist."
        )
    augment = params.student.augment
    if _sees_whole_images(_entry(name, params)) and augment.mixup + augment.cutmix:
        raise UserError(
            f"tune.space.method names {name}, which remembers images, and a mixed view shows two: take it out, or set "
            "student.augment.mixup and cutmix to 0."
        )


def decides(params: Params, drawn: Mapping[str, BaseDistribution]) -> list[Any]:
    """What makes the trials of two searches comparable: the knobs, and all params that are none."""
    student = params.student.model_dump(exclude=_KNOBS_OF_STUDENT | {"augment"})
    augment = params.student.augment.model_dump(exclude={"mixup"})
    distill = params.distill.model_dump(exclude={"method", "label_weight", "mixed_targets"})
    methods = {name: {**_settings(name, params), "temperature": None} for name in drawn["method"].choices}  # type: ignore[attr-defined]
    several = str(params.distill.method) if _several(params) else ""
    often = round(params.student.steps / params.student.eval_every)
    knobs = {name: distribution_to_json(distribution) for name, distribution in drawn.items()}
    return [student, augment, distill, methods, several, often, knobs, params.seed, _mixes_in_store(params)]
