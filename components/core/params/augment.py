"""The sections ``augment`` of ``params.yaml``: how a view differs from its image."""

from typing import Annotated

from pydantic import Field, model_validator

from reflux.components.core.params.section import Fraction, Section


class Augment(Section):
    """Random draws of a view; 0, false and 1.0 switch a draw off.

    Attributes:
        shift: the largest shift, as a share of the image's side.
        flip: half of the views are mirrored, left and right.
        crop_scale: the smallest share of the area that a crop keeps.
        rotate_deg: the largest rotation, either way.
        color: strength of changes in brightness, contrast and saturation; 0.4 is a factor of 0.6 to 1.4.
        erase: share of the views that get a black rectangle over 2 to 25 % of the image.
    """

    shift: Fraction = 0.0
    flip: bool = False
    crop_scale: Annotated[float, Field(gt=0, le=1)] = 1.0
    rotate_deg: Annotated[float, Field(ge=0, le=180)] = 0.0
    color: Fraction = 0.0
    erase: Fraction = 0.0


class StudentAugment(Augment):
    """Random draws that also mix a view with another image's.

    Attributes:
        mixup: share of the views that are blended with another image's.
        cutmix: share of the views in which a box shows another image's.
        mixup_alpha: the image's share in a blend is drawn from Beta(alpha, alpha).
        cutmix_alpha: likewise for the share of the area outside the box.
    """

    mixup: Fraction = 0.0
    cutmix: Fraction = 0.0
    mixup_alpha: Annotated[float, Field(gt=0, le=4)] = 1.0
    cutmix_alpha: Annotated[float, Field(gt=0, le=4)] = 1.0

    @model_validator(mode="after")
    def mixes_a_view_in_one_way(self) -> "StudentAugment":
        if self.mixup + self.cutmix > 1:
            raise ValueError("mixup + cutmix must be 1 at most: they are shares of the views")
        return self
