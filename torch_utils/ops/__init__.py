"""Operations on the hot path, each with a plain torch twin of the same signature."""

from .bias_act import bias_act
from .build import set_mode
from .triplane_render import triplane_render
from .upfirdn2d import resample_filter, upfirdn2d

__all__ = ["bias_act", "resample_filter", "set_mode", "triplane_render", "upfirdn2d"]
