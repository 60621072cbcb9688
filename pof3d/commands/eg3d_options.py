"""Options of EG3D's scripts and their kin that have other names here: a hint names ours."""

from collections.abc import Mapping
from typing import Any

import click

from dnnlib import Command

_TRUNCATION = dict.fromkeys(
    ("--truncation-psi", "--truncation", "--trunc-psi", "--psi"), "write --trunc 0.7"
) | {"--truncation-cutoff": "write --trunc-cutoff 14"}
_INFERENCE = {
    **_TRUNCATION,
    "--nrr": "write --render-size PIXELS",
    "--neural-rendering-resolution": "write --render-size PIXELS",
    "--neural-rendering-resolution-initial": "write --render-size PIXELS",
    "--sample-mult": "that factor is part of the network's settings",
    "--sampling-multiplier": "that factor is part of the network's settings",
    "--reload-modules": "leave it out: network files hold no code",
    "--cfg": "leave it out: the network file knows its settings",
    "--class": "leave it out: there are no classes",
    "--network-pkl": "write --network FILE",
    "--pkl": "write --network FILE",
    "--ckpt": "write --network FILE",
    "--checkpoint": "write --network FILE",
    "--seed": "write --seeds 0-3,7",
    "--projected-w": "write --latent FILE.npz",
    "--ws": "write --latent FILE.npz",
    "--noise-mode": "leave it out: the noise is constant, so that a seed is one object",
    "--cpu": "write --device cpu",
    "--gpu": "write --device cuda",
}
SAMPLES = _INFERENCE | {
    "--dest": "write --outdir FOLDER",
    "--output": "write --outdir FOLDER",
    "--out": "write --outdir FOLDER",
    "--fov": "write --fov-deg DEGREES",
    "--shape-only-first": "write --seeds with the one seed",
    "--grid": "contact_sheet.png shows all samples; see also `pof3d videos`",
    "--shape": "write --shapes true",
    "--image-mode": "write --depth or --raw",
    "--rows": "write --seeds",
    "--cols": "write --mix-with SEEDS",
    "--styles": "write --mix-layers 4-7",
}
VIDEOS = _INFERENCE | {
    "--output": "write --dest FILE.mp4, .gif or .webp",
    "--out": "write --dest FILE.mp4, .gif or .webp",
    "--num-frames": "write --frames",
    "--shuffle-seed": "write --seeds in the order you want",
    "--shapes": "write --mesh; `pof3d samples` writes files of them",
    "--fov": "write --fov-deg DEGREES",
    "--yaw-range": "write --yaw DEGREES",
    "--pitch-range": "write --pitch DEGREES",
    "--trajectory-type": "write --trajectory swing, turntable or spiral",
}
TRAIN = {
    "--neural-rendering-resolution-initial": "write --set rendering.raw_resolution=64",
    "--neural-rendering-resolution-final": "write --set rendering.raw_resolution_end=128",
    "--neural-rendering-resolution-fade-kimg": "write --set rendering.raw_growth_kimg=1000",
    "--cbase": "write --set generator.channel_base=N --set discriminator.channel_base=N",
    "--cmax": "write --set generator.channel_max=N --set discriminator.channel_max=N",
    "--map-depth": "write --set generator.mapping_layers=N",
    "--mbstd-group": "write --set discriminator.group_size=N",
    "--freezed": "write --set discriminator.freeze_blocks=N",
    "--glr": "write --set optim.g_lr=RATE",
    "--dlr": "write --set optim.d_lr=RATE",
    "--p": "write --aug fixed --set augment.p=P",
    "--target": "write --set augment.target=T",
    "--blur-fade-kimg": "write --set loss.blur_kimg=N",
    "--density-reg": "write --set loss.density_weight=W",
    "--density-reg-every": "write --set loss.density_every=N",
    "--density-reg-p-dist": "write --set loss.density_step=LENGTH",
    "--style-mixing-prob": "write --set generator.style_mixing=P",
    "--fp32": "write --precision fp32",
    "--cond": "poses are learned; for camera labels write --poses dataset",
    "--gen-pose-cond": "poses are learned; for camera labels write --poses dataset",
    "--gpc-reg-prob": "poses are learned; for camera labels write --poses dataset",
    "--disc-c-noise": "poses are learned: there are no labels to perturb",
    "--subset": "write --set data.max_images=N",
    "--fov": "write --set camera.focal=F, in image widths",
    "--sr-module": "super-resolution follows from the resolution of the data",
    "--decoder-lr-mul": "there is no such factor here; leave it out",
    "--resume-blur": "leave it out: a checkpoint knows",
    "--nobench": "leave it out",
    "--batch-size": "write --batch N",
    "--max-kimg": "write --kimg N",
    "--dataset": "write --data ZIP|DIR",
    "--preset": "write --cfg NAME",
    "--aug-p": "write --aug fixed --set augment.p=P",
}
PROJECT = _INFERENCE | {
    "--latent": "that is what project writes: NAME.npz in --outdir",
    "--target": "write the files, folders or zips at the end",
    "--target-fname": "write the files, folders or zips at the end",
    "--data": "write the files, folders or zips at the end",
    "--image": "write the files, folders or zips at the end",
    "--dest": "write --outdir FOLDER",
    "--out": "write --outdir FOLDER",
    "--num-steps": "write --steps",
    "--num-steps-pti": "write --tune-steps",
    "--save-video": "write --video .mp4, .gif or none",
    "--shapes": "write --shape-format .ply or none",
    "--seeds": "write --seed",
}
METRICS = {
    "--network-pkl": "write --network FILE",
    "--dataset": "write --data ZIP|DIR",
}
DATASET = {
    "--width": "write --resolution PIXELS",
    "--height": "write --resolution PIXELS",
    "--transform": "write --crop center or --crop pad",
}


class HintingCommand(Command):
    """A command that knows what options are called elsewhere.

    Args:
        elsewhere: by option, in dashes and lower case, what to write instead.
    """

    def __init__(self, *args: Any, elsewhere: Mapping[str, str] | None = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.elsewhere = elsewhere or {}

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse as click does, with hints for unknown options."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            name = error.option_name.lower().replace("_", "-")
            if name not in self.elsewhere:
                raise
            message = f"there is no {error.option_name} here: {self.elsewhere[name]}"
            raise click.UsageError(message, ctx) from error
