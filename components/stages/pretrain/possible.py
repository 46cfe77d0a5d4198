"""What self-supervised pretraining needs: a package, and unlabeled images. It imports nothing that takes long."""

from importlib.util import find_spec

from reflux.components.core.errors import UserError


def check_installed() -> None:
    """Look for the package that the heads and the loss come from.

    Raises:
        UserError: it is not installed.
    """
    if find_spec("lightly") is None:
        raise UserError(
            "pretrain.mode = self-supervised needs the package lightly: `pip install lightly`, "
            "or set pretrain.mode to none."
        )


def refuse_no_images(mode: str, unlabeled: int) -> None:
    """Refuse self-supervised pretraining on a dataset without unlabeled images.

    Raises:
        UserError: there are none.
    """
    if mode == "self-supervised" and not unlabeled:
        raise UserError(
            "pretrain.mode = self-supervised learns from unlabeled images, and the dataset has none: add some (a "
            "folder or file named unlabeled), or set pretrain.mode to none."
        )
