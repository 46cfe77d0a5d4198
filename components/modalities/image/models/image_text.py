"""The image side of open_clip's image-text models, as a classifier whose head may be made of texts."""

import difflib
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from reflux.components.core.errors import UserError

PREFIX = "open_clip:"


class ImageTower(nn.Module):
    """An image encoder with a linear head on its normalized embeddings, with the methods of timm's networks.

    With the embeddings of texts as the head's rows, times the model's logit scale, it is a zero-shot classifier
    (Radford et al. 2021, section 3.1.2).
    """

    def __init__(self, visual: nn.Module, dimensions: int, num_classes: int) -> None:
        super().__init__()
        self.visual = visual
        self.head = nn.Linear(dimensions, num_classes, bias=False)

    def get_classifier(self) -> nn.Linear:
        return self.head

    def forward_features(self, x: Tensor) -> Tensor:
        embeddings = self.visual(x)
        if isinstance(embeddings, tuple):  # CoCa's are followed by tokens
            embeddings = embeddings[0]
        return F.normalize(embeddings, dim=-1)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        return x if pre_logits else self.head(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


def image_tower(name: str, num_classes: int) -> ImageTower:
    """Build the image side of a model, with random weights, and a head for so many classes; nothing is downloaded.

    Args:
        name: ``open_clip:`` and one of open_clip's, as for :func:`config_of`.
        num_classes: K.

    Raises:
        UserError: open_clip is not installed, or does not know the name.
    """
    config = config_of(name)
    from open_clip.model import _build_vision_tower  # its public functions build the text side, too

    vision = {**config["vision_cfg"], "timm_model_pretrained": False}
    visual = _build_vision_tower(config["embed_dim"], vision, config["quick_gelu"])
    return ImageTower(visual, config["embed_dim"], num_classes)


def image_size(name: str) -> int:
    """The side of the images that a model takes, in pixels.

    Raises:
        UserError: as for :func:`config_of`.
    """
    size = config_of(name)["vision_cfg"].get("image_size", 224)
    return int(size if isinstance(size, int) else size[0])


def config_of(name: str) -> dict[str, Any]:
    """open_clip's settings of a model; ``quick_gelu`` is what its weights were trained with.

    Args:
        name: ``open_clip:`` and ``ARCHITECTURE/TAG``, ``hf-hub:OWNER/REPOSITORY`` or ``local-dir:FOLDER``.

    Raises:
        UserError: open_clip is not installed, or does not know the name.
    """
    open_clip, (own, tag) = _package(name), split(name)
    if tag is None:
        try:
            config = open_clip.get_model_config(own)
        except Exception as error:  # the hub's client raises whatever its transport raises
            raise UserError(
                f"pretrain.model = {name} can't be had ({type(error).__name__}): check the name, and for hf-hub the "
                "internet connection."
            ) from None
        return {"quick_gelu": False, **config}
    known = [f"{architecture}/{each}" for architecture, each in open_clip.list_pretrained()]
    if f"{own}/{tag}" not in known:
        near = difflib.get_close_matches(f"{own}/{tag}", known, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else "`open_clip.list_pretrained()` lists the names."
        raise UserError(f"No image-text model is named {own}/{tag}; {hint}")
    config = open_clip.get_model_config(own)
    of_weights = open_clip.get_pretrained_cfg(own, tag).get("quick_gelu", False)
    return {**config, "quick_gelu": of_weights or config.get("quick_gelu", False)}


def split(name: str) -> tuple[str, str | None]:
    """open_clip's name for a model, and the tag of its weights; None where they come with the name."""
    own = name.removeprefix(PREFIX)
    if ":" in own:
        return own, None
    architecture, _, tag = own.partition("/")
    return architecture, tag


def _package(name: str) -> Any:
    try:
        import open_clip
    except ImportError:
        raise UserError(
            f"pretrain.model = {name} needs the package open_clip_torch: `pip install open_clip_torch`, or take "
            "another model."
        ) from None
    return open_clip
