"""The words for the classes, and the prompts, by which an image-text model is asked for them: ``pretrain.classes``."""

from collections.abc import Sequence
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from reflux.components.core.errors import UserError, listed

_SHOWN = 3


def read_names(path: Path, classes: Sequence[str]) -> tuple[list[str], list[str]]:
    """Read the words for some classes, in their order, and the prompts, each with ``{}`` in the place of the words.

    Raises:
        UserError: the file is missing or no YAML, has no prompts, or no words for one of the classes.
    """
    words, prompts = _read(path)
    if missing := [name for name in classes if name not in words]:
        raise UserError(
            f"{path} has no words for {listed(missing, _SHOWN)}: under `classes` give every class of the dataset a "
            f"text, such as `{missing[0]}: {missing[0].replace('_', ' ')}`."
        )
    return [words[name] for name in classes], prompts


def _read(path: Path) -> tuple[dict[str, str], list[str]]:
    try:
        content = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            f"pretrain.classes = {path} can't be read ({error.strerror}): write into it `classes`, a text for each "
            "(`bag: handbag`), and `prompts`, a list of texts that have {} once (`a photo of a {}.`)."
        ) from None
    except (YAMLError, UnicodeDecodeError) as error:
        why = " ".join(str(error).split())[:200]
        raise UserError(f"pretrain.classes = {path} is not valid YAML ({why}): correct it.") from None
    content = content if isinstance(content, dict) else {}
    words, prompts = content.get("classes"), content.get("prompts")
    if not isinstance(words, dict) or not all(isinstance(text, str) and text for text in words.values()):
        raise UserError(f"{path} has no words for the classes: give it `classes`, a text for each (`bag: handbag`).")
    if not isinstance(prompts, list) or not prompts or not all(map(_is_prompt, prompts)):
        raise UserError(
            f"{path} has no prompts: give it `prompts`, a list of texts that have {{}} once (`a photo of a {{}}.`)."
        )
    return {str(name): text for name, text in words.items()}, prompts


def _is_prompt(text: object) -> bool:
    return isinstance(text, str) and text.count("{}") == 1 and not {*"{}"} & {*text.replace("{}", "")}
