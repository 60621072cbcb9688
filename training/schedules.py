"""What changes while training, as functions of the images so far."""

from training.config import Config


def blur_sigma(config: Config, kimg: float) -> float:
    """Blur of D's images, in pixels: falls linearly to zero over blur_kimg x batch / 32."""
    duration = config.loss.blur_kimg * config.run.batch / 32
    return config.loss.blur_sigma * max(1 - kimg / duration, 0) if duration else 0.0


def raw_resolution(config: Config, kimg: float) -> int:
    """Resolution of the rendering: grows linearly where the configuration says so (EG3D)."""
    rendering = config.rendering
    start, end = rendering.raw_resolution, rendering.raw_resolution_end
    if end is None:
        return start
    return round(start + (end - start) * min(kimg / rendering.raw_growth_kimg, 1))


def ema_decay(config: Config, images: int) -> float:
    """Decay of the moving averages of weights per step (StyleGAN2; ramp-up: StyleGAN2-ADA).

    images: number of training images so far.
    """
    run, optim = config.run, config.optim
    half_life = 1000 * (optim.ema_kimg or run.batch * 10 / 32)
    if optim.ema_rampup is not None:
        half_life = min(half_life, images * optim.ema_rampup)
    return 0.5 ** (run.batch / max(half_life, 1e-8))
