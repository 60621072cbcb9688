"""Settings of GeoD, the optional supervision of geometry by an inverse renderer."""

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from training.config import _Section
from training.networks.perceptual import LITE0


class GeodConfig(_Section):
    """Supervision of geometry by an inverse renderer (GeoD, Shi et al. 2022). Off by default.

    It is on, and the inverse renderer is built, as soon as a weight is above 0. The schedule's
    defaults are those of the published classes; the published scripts never switch it on.
    """

    weight_start: float = Field(0.0, ge=0, description="weight of the normal loss at start_kimg")
    weight_end: float = Field(
        0.0, ge=0, description="weight from end_kimg on; 0.1 is the published classes' default"
    )
    start_kimg: float = Field(
        20.0, ge=0, description="thousand images after which the normal loss sets in"
    )
    end_kimg: float = Field(
        60.0,
        ge=0,
        description="where the weight has moved, linearly, from weight_start to weight_end; "
        "start_kimg itself for a step",
    )
    stop_kimg: float = Field(
        2000.0, ge=0, description="thousand images at which the normal loss ends"
    )
    train_until_kimg: float = Field(
        2000.0, ge=0, description="thousand images up to which the inverse renderer is trained"
    )
    interval: PositiveInt = Field(
        1, description="steps between two computations of the normal loss; not made up for"
    )
    interval_from_kimg: float = Field(
        0.0, ge=0, description="up to here the normal loss is computed in every step"
    )
    pretrained: str | None = Field(
        None,
        description="file to take the inverse renderer from, a published checkpoint or a network "
        "file written with --with-ir; it is not trained any further",
    )
    width: PositiveInt = Field(
        64,
        multiple_of=16,
        description="channels of the inverse renderer's first layers; published ones have 64",
    )
    mirror_weight: float = Field(
        0.5, ge=0, description="of the mirrored object's terms, relative to the object's own"
    )
    perceptual_weight: float = Field(1.0, ge=0, description="of the perceptual terms")
    smoothness_weight: float = Field(0.0, ge=0, description="of the canonical depth's smoothness")
    confidence: bool = Field(
        True, description="weigh errors by a learned confidence (Wu et al. 2020, equation 3)"
    )
    features: str = Field(
        LITE0,
        description="what the perceptual terms compare: efficientnet-lite0 (from its package), the "
        "path of VGG16's weights (torchvision's file; as published), or random",
    )
    lr: PositiveFloat = Field(1e-4, description="of Adam, betas (0.9, 0.999)")
    weight_decay: float = Field(5e-4, ge=0, description="L2, added to the gradient")
    detach_target: bool = Field(
        False,
        description="the inverse renderer's normals are a fixed target: the generator cannot lower "
        "the loss by what it paints; not as published",
    )
    camera_fov: bool = Field(
        False,
        description="take the field of view from camera.focal; as published it is 18.837 degrees "
        "for any camera, the diagonal of ffhq's",
    )
    axial_depth: bool = Field(
        False,
        description="turn the generator's distances along rays into depths before normals are "
        "taken; not as published",
    )
    erode_mask: bool = Field(
        False,
        description="leave out pixels beside empty ones, whose normals are not those of a surface; "
        "not as published",
    )

    @property
    def active(self) -> bool:
        """Whether the generator is ever supervised."""
        return max(self.weight_start, self.weight_end) > 0 and self.start_kimg < self.stop_kimg

    @model_validator(mode="after")
    def _ordered(self) -> "GeodConfig":
        if self.start_kimg > self.end_kimg:
            raise ValueError(
                f"geod.start_kimg {self.start_kimg:g} lies after geod.end_kimg {self.end_kimg:g}"
            )
        return self
