"""Zero-shot teachers: image-text models whose head is made of the classes' names (Radford et al. 2021)."""

from collections.abc import Sequence
from typing import Any

import torch

from reflux.components.core.errors import UserError
from reflux.components.modalities.image.models.image_text import ImageTower, config_of, split
from reflux.components.modalities.image.models.pixel_model import ModelSpec, PixelModel


def zero_shot_teacher(name: str, classes: Sequence[str], words: Sequence[str], prompts: Sequence[str]) -> PixelModel:
    """Make a classifier of a pretrained image-text model, without an image of the classes.

    The logit of class k is ``s · cos(φ(x), mean_p ψ(p_k) / |ψ(p_k)|)``: the model's scale s, its image and text
    encoders φ and ψ, and the prompts p filled with the words of the class.

    Args:
        name: as :func:`reflux.components.modalities.image.models.image_text.config_of` takes it.
        classes: of the dataset, in label order.
        words: for each of them.
        prompts: with ``{}`` in the place of the words.

    Raises:
        UserError: open_clip is not installed, does not know the name, or can't get the weights.
    """
    model, tokenizer = _pretrained(name)
    from open_clip import build_zero_shot_classifier

    embeddings = build_zero_shot_classifier(model, tokenizer, list(words), list(prompts))  # [D, K]
    tower = ImageTower(model.visual, len(embeddings), len(classes))
    with torch.no_grad():
        tower.head.weight.copy_(model.logit_scale.exp() * embeddings.T)
    facts = model.visual.preprocess_cfg
    size = facts["size"] if isinstance(facts["size"], int) else facts["size"][0]
    return PixelModel(tower, ModelSpec(name, tuple(classes), size, 3, tuple(facts["mean"]), tuple(facts["std"])))


def _pretrained(name: str) -> tuple[Any, Any]:
    """The model in eval mode, with its weights, and its tokenizer."""
    config, (own, tag) = config_of(name), split(name)
    import open_clip

    weights = {"pretrained": tag, "force_quick_gelu": config["quick_gelu"]} if tag else {}
    try:
        model = open_clip.create_model(own, require_pretrained=True, pretrained_text=False, **weights)
        return model.eval(), open_clip.get_tokenizer(own)
    except Exception as error:  # the hub's client raises whatever its transport raises
        first = (str(error).splitlines() or [""])[0][:200]
        raise UserError(
            f"The weights or the tokenizer of pretrain.model = {name} can't be had ({type(error).__name__}: {first}): "
            "check the internet connection, or take a model in a folder (open_clip:local-dir:FOLDER)."
        ) from None
