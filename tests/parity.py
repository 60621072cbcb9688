"""Compare this implementation with tensors that the published one computed.

    python -m tests.parity DIR

checks every file of reference tensors in DIR, prints a line per quantity with its relative error,
and exits with status 1 when one exceeds its tolerance. Sizes come from the shapes in the files,
everything else from the `options` stored beside them. Known files, by name:

    cameras.npz           poses, mirrors, intrinsics, rays
    ops.npz               resampling, activations, convolutions
    renderer_NAME.npz     the tri-plane renderer, its draws given
    networks_NAME.npz     parameters of both networks, and what they compute
    loss_NAME_MIRROR.npz  every gradient of one training step on the networks of networks_NAME.npz
    geod_*                geometry supervision, see tests/parity_geod.py
"""

import contextlib
import json
import math
import re
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import click
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dnnlib import Command, UserError
from torch_utils.ops import bias_act, resample_filter, triplane_render, upfirdn2d
from torch_utils.ops.rays import transmittance
from torch_utils.ops.triplane_render import DecoderWeights
from training import cameras, losses
from training.config import Config, LossConfig
from training.networks import layers, rendering
from training.networks.discriminator import Discriminator
from training.networks.generator import Generator
from training.presets import build_config

from .kinks import ON_KINK, KinkWatch, Unit

DATA = Path(__file__).parent / "data" / "parity"

OUTPUT_TOLERANCE = 1e-4
GRADIENT_TOLERANCE = 1e-3
# A gradient smaller than this share of its phase's largest is rounding, and compared with that one.
NEGLIGIBLE = 1e-6


class Quantity(NamedTuple):
    """One comparison. error: relative, unless said otherwise in the name."""

    name: str
    error: float
    tolerance: float

    @property
    def ok(self) -> bool:
        return self.error <= self.tolerance  # false for NaN

    def __str__(self) -> str:
        verdict = "ok  " if self.ok else "MISS"
        return f"{verdict}  {self.error:8.2e}  (at most {self.tolerance:.0e})  {self.name}"


class Fixture:
    """A file of reference tensors. Raises UserError when it, or a tensor in it, cannot be read."""

    def __init__(self, path: Path):
        self.path = path
        self.name = path.stem
        try:
            with np.load(path) as file:
                self._arrays = {key: file[key] for key in file.files}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(f"cannot read reference tensors from {path}: {error}") from error

    def array(self, key: str) -> np.ndarray:
        if key not in self._arrays:
            raise UserError(f"{self.path} holds no '{key}'")
        return self._arrays[key]

    def __getitem__(self, key: str) -> Tensor:
        return torch.from_numpy(self.array(key).copy())

    def json(self, key: str) -> Any:
        return json.loads(str(self.array(key)))

    def below(self, prefix: str) -> list[str]:
        """The rest of every key that starts with `prefix`."""
        return [key.removeprefix(prefix) for key in self._arrays if key.startswith(prefix)]

    def cases(self, prefix: str) -> list[str]:
        """'PREFIX/0/', 'PREFIX/1/', ..., as far as there are any."""
        return list(dict.fromkeys(f"{prefix}{key.split('/')[0]}/" for key in self.below(prefix)))

    def compare(self, key: str, ours: Tensor, tolerance: float = OUTPUT_TOLERANCE) -> Quantity:
        return Quantity(key, relative_error(ours, self[key]), tolerance)


def fixture(name: str) -> Fixture:
    """One of the files that travel with the tests."""
    return Fixture(DATA / f"{name}.npz")


def relative_error(ours: Tensor, theirs: Tensor, scale: float | None = None) -> float:
    """||ours - theirs|| / ||theirs||, or / scale; absolute where that is zero."""
    if ours.shape != theirs.shape:
        return math.inf
    ours, theirs = ours.detach().double(), theirs.double()
    scale = theirs.norm().item() if scale is None else scale
    return (ours - theirs).norm().item() / (scale or 1.0)


# --- Cameras and operations


def check_cameras(f: Fixture) -> Iterator[Quantity]:
    """Poses, mirrors, intrinsics and rays; the latter are those of the ffhq cameras."""
    pose = torch.cat([f["horizontal"], f["vertical"]], dim=1)
    for preset in ("ffhq", "cats", "shapenet"):
        sphere = build_config(preset).camera
        ours = cameras.cam2world_from_pose(pose, sphere.radius, sphere.pivot)
        yield f.compare(f"{preset}_cam2world", ours)
    cam2world = f["ffhq_cam2world"]
    for kind in f.below("flip_"):
        yield f.compare(f"flip_{kind}", cameras.mirror_cam2world(cam2world, kind))
    for fov in f.below("intrinsics_fov"):
        ours = cameras.intrinsics_from_focal(cameras.focal_from_fov(float(fov)))
        yield f.compare(f"intrinsics_fov{fov}", ours)
    for resolution in f.below("ray_origins_res"):
        intrinsics = f["intrinsics_fov18.837"]
        rays = cameras.rays_from_cameras(cam2world, intrinsics, int(resolution))
        yield f.compare(f"ray_origins_res{resolution}", rays.origins)
        yield f.compare(f"ray_directions_res{resolution}", rays.directions)


def check_upfirdn2d(f: Fixture) -> Iterator[Quantity]:
    for case in f.cases("upfirdn2d/"):
        kernel = resample_filter(f[case + "filter"])
        yield f.compare(case + "setup_filter", kernel)
        function = partial(upfirdn2d, kernel=kernel, **f.json(case + "args"))
        yield from _check_function(f, case, function, ["x"])


def check_bias_act(f: Fixture) -> Iterator[Quantity]:
    for case in f.cases("bias_act/"):
        yield from _check_function(f, case, partial(bias_act, **f.json(case + "args")), ["x", "b"])


def check_modulated_conv2d(f: Fixture) -> Iterator[Quantity]:
    for case in f.cases("modulated_conv2d/"):
        function = partial(layers.modulated_conv2d, **_convolution(f, case, "up", "demodulate"))
        yield from _check_function(f, case, function, ["x", "weight", "styles"])


def check_conv2d_resample(f: Fixture) -> Iterator[Quantity]:
    for case in f.cases("conv2d_resample/"):
        function = partial(layers.conv2d_resample, **_convolution(f, case, "up", "down"))
        yield from _check_function(f, case, function, ["x", "weight"])


def check_minibatch_std(f: Fixture) -> Iterator[Quantity]:
    for size in f.below("minibatch_std/y_group"):
        ours = layers.minibatch_std(f["minibatch_std/x"], int(size))
        yield f.compare(f"minibatch_std/y_group{size}", ours)


def _convolution(f: Fixture, case: str, *names: str) -> dict[str, Any]:
    arguments = f.json(case + "args")
    kernel = resample_filter(arguments["resample_filter"])
    return {"kernel": kernel} | {name: arguments[name] for name in names}


def _check_function(
    f: Fixture, case: str, function: Callable[..., Tensor], inputs: list[str]
) -> Iterator[Quantity]:
    """Compare y = function(*inputs) and, where they are stored, the gradients of the inputs."""
    tensors = [f[case + name].requires_grad_() for name in inputs]
    y = function(*tensors)
    yield f.compare(case + "y", y)
    if f.below(case + "grad_y"):
        gradients = torch.autograd.grad(y, tensors, f[case + "grad_y"])
        for name, gradient in zip(inputs, gradients, strict=True):
            yield f.compare(f"{case}grad_{name}", gradient, GRADIENT_TOLERANCE)


# --- The renderer


def check_renderer(f: Fixture) -> Iterator[Quantity]:
    options = {"wrong": "eg3d" in f.name} | f.json("options")
    config = build_config("ffhq", settings_of_options(options)).rendering
    rays = cameras.rays_from_cameras(
        f["cam2world"], f["intrinsics"], math.isqrt(f["ray_origins"].shape[1])
    )
    yield f.compare("ray_origins", rays.origins)
    yield f.compare("ray_directions", rays.directions)

    leaves = {name: f[name].requires_grad_() for name in ("planes", "w1", "b1", "w2", "b2")}
    planes, w1, b1, w2, b2 = leaves.values()
    decoder = DecoderWeights(w1 / w1.shape[1] ** 0.5, b1, w2 / w2.shape[1] ** 0.5, b2)
    sampling = rendering.RaySampling(f["jitter"], f["importance_u"])
    with mock.patch.object(rendering, "composite", wraps=rendering.composite) as composite:
        rendered = rendering.render_rays(planes, decoder, rays, config, sampling)
    yield f.compare("features", rendered.features)
    yield f.compare("depth", rendered.depth)
    yield f.compare("weights_sum", rendered.opacity)
    yield f.compare("transmittance", _light_before_last_interval(*composite.call_args.args))

    upstream = [f["grad_features"], f["grad_depth"]]
    outputs = [rendered.features, rendered.depth]
    gradients = torch.autograd.grad(outputs, list(leaves.values()), upstream)
    for name, gradient in zip(leaves, gradients, strict=True):
        yield f.compare(f"grad_{name}", gradient, GRADIENT_TOLERANCE)

    field = triplane_render(
        planes, f["query_points"], decoder, box_warp=config.box_warp, axes=config.plane_axes
    )
    yield f.compare("query_sigma", field.sigma)
    yield f.compare("query_rgb", field.color)


def _light_before_last_interval(
    passes: list[rendering.FieldSamples], depths: list[Tensor]
) -> Tensor:
    """What the reference calls transmittance."""
    depths, order = torch.cat(depths, dim=-1).sort(dim=-1)
    sigma = torch.cat([samples.sigma.squeeze(-1) for samples in passes], dim=-1).gather(-1, order)
    density = F.softplus((sigma[..., :-1] + sigma[..., 1:]) / 2 - 1)
    return transmittance(density, depths.diff(dim=-1))[..., -2:-1]


# --- The networks


class Networks(NamedTuple):
    generator: Generator
    discriminator: Discriminator


# The reference's option -> our setting.
OPTIONS = {
    "image_resolution": "data.resolution",
    "depth_resolution": "rendering.samples",
    "depth_resolution_importance": "rendering.importance_samples",
    "ray_start": "rendering.near",
    "ray_end": "rendering.far",
    "box_warp": "rendering.box_warp",
    "white_back": "rendering.white_background",
    "avg_camera_radius": "camera.radius",
    "avg_camera_pivot": "camera.pivot",
    "h_mean": "camera.mean_h",
    "dis_cam_weight": "loss.pose_weight",
    "pose_gd_weight": "loss.pose_consistency_weight",
    "density_reg": "loss.density_weight",
    "density_reg_p_dist": "loss.density_step",
}


def settings_of_options(options: dict[str, Any]) -> dict[str, Any]:
    settings = {ours: options[theirs] for theirs, ours in OPTIONS.items() if theirs in options}
    axes = "eg3d" if options.get("wrong") else "full"
    return settings | {"rendering.plane_axes": axes}


def config_of_networks(f: Fixture) -> Config:
    """The settings of a networks file: options as stored, sizes from the shapes of parameters."""
    options = f.json("options")
    shapenet = "shapenet" in f.name + options.get("flip_type", "")

    backbone, size = "G/backbone.synthesis.", options["image_resolution"]
    widths = {r: f[f"{backbone}b{r}.conv1.bias"].numel() for r in _resolutions(f, backbone)}
    d_widths = {r: f[f"D/b{r}.conv0.bias"].numel() for r in _resolutions(f, "D/") if r > 4}
    d_widths[4] = f["D/b4.conv.bias"].numel()
    sizes = {
        "generator.z_dim": f["z"].shape[1],
        "generator.w_dim": f["ws"].shape[1],
        "generator.mapping_layers": _count_layers(f, "G/backbone.mapping."),
        "generator.channel_base": max(r * width for r, width in widths.items()),
        "generator.channel_max": max(widths.values()),
        "generator.plane_resolution": max(widths),
        "generator.plane_channels": f[f"{backbone}b4.torgb.bias"].numel() // 3,
        "generator.decoder_hidden": f["G/decoder.net.0.bias"].numel(),
        "generator.feature_channels": f["G/decoder.net.2.bias"].numel() - 1,
        "discriminator.dual": f[f"D/b{size}.fromrgb.weight"].shape[1] == 6,
        "discriminator.channel_base": max(r * width for r, width in d_widths.items()),
        "discriminator.channel_max": max(d_widths.values()),
        "discriminator.mapping_layers": _count_layers(f, "D/mapping."),
        "rendering.raw_resolution": f["image_raw"].shape[-1],
    }
    return build_config(
        "shapenet_cars" if shapenet else "ffhq", settings_of_options(options) | sizes
    )


def _resolutions(f: Fixture, prefix: str) -> set[int]:
    return {int(match[1]) for key in f.below(prefix) if (match := re.match(r"b(\d+)\.", key))}


def _count_layers(f: Fixture, prefix: str) -> int:
    return sum(bool(re.fullmatch(r"fc\d+\.weight", key)) for key in f.below(prefix))


def networks_of(f: Fixture) -> Networks:
    """Both networks with the parameters of a networks file. Raises UserError if they do not fit."""
    config = config_of_networks(f)
    networks = Networks(Generator(config), Discriminator(config))
    for prefix, network in zip(("G/", "D/"), networks, strict=True):
        state = {key: f[prefix + key] for key in f.below(prefix) if "resample_filter" not in key}
        # The noise of super-resolution is never used.
        state |= {
            key: value
            for key, value in network.state_dict().items()
            if re.fullmatch(r"superresolution\..*noise_const", key)
        }
        try:
            network.load_state_dict(state)
        except RuntimeError as error:
            raise UserError(f"{f.path} does not fit the network: {error}") from error
    return networks


@torch.no_grad()
def check_networks(f: Fixture) -> Iterator[Quantity]:
    generator, discriminator = networks_of(f)
    latent = generator.latent(f["z"])
    yield f.compare("ws", latent.w)
    for key in f.below("ws_trunc"):
        truncation, cutoff = re.fullmatch(r"([\d.]+)_cutoff(\d+)", key).groups()
        cut = generator.latent(f["z"], truncation=float(truncation), cutoff=int(cutoff))
        yield f.compare(f"ws_trunc{key}", cut.ws)
    yield f.compare("pose", latent.pose)
    cam2world = generator.cam2world(latent.pose)
    yield f.compare("cam2world", cam2world)

    planes = generator.planes(latent.ws)
    texels = planes.flatten(1, 2)[: len(f["planes_every8"]), :, ::8, ::8]
    yield f.compare("planes_every8", texels)

    view = generator.render(planes, latent.ws, cam2world[:, None], f["intrinsics"]).select(0)
    stride = view.image.shape[-1] // f["image_strided"].shape[-1]
    yield f.compare("image_strided", view.image[:, :, ::stride, ::stride])
    yield f.compare("image_mean", view.image.mean(dim=(2, 3)))
    yield f.compare("image_raw", view.raw)
    yield f.compare("depth", view.depth)

    output = discriminator(view.image, view.raw)
    yield f.compare("D_pose", output.pose)
    yield f.compare("D_score", output.score)


# --- One training step


class Step(NamedTuple):
    """What the four phases of a loss file are computed from. points, nearby: [B, N, 3]."""

    networks: Networks
    inputs: losses.StepInputs
    real: losses.RealBatch
    points: Tensor
    nearby: Tensor


class Outcome(NamedTuple):
    """What a phase gave. reports: under the reference's names. gradients: by parameter, or None."""

    reports: dict[str, float]
    gradients: dict[str, Tensor | None]


PHASES = ("Gmain", "Greg", "Dmain", "Dreg")


def step_of(f: Fixture) -> Step:
    """The step of a loss file; the file of its networks must lie beside it."""
    match = re.fullmatch(r"loss_(.+?)_((?:shapenet_)?(?:horizontal|vertical))", f.name)
    if match is None:
        raise UserError(f"{f.path} should be named loss_NAME_horizontal or loss_NAME_vertical")
    networks = networks_of(Fixture(f.path.with_name(f"networks_{match[1]}.npz")))
    with torch.no_grad():
        for key, parameter in networks.generator.named_parameters():
            if key.endswith("noise_strength"):
                parameter.zero_()
    config = networks.generator.config
    if penalty := f.json("Dreg/reports")["Loss/r1_penalty"][0]:  # the one place that tells gamma
        gamma = 2 * f.json("Dreg/reports")["Loss/D/reg"][0] / penalty
        loss = config.loss.model_copy(update={"gamma": gamma})
        config = networks.generator.config = config.model_copy(update={"loss": loss})
    # The files say 'horizontal' for ShapeNet's own kind too.
    kind = next(kind for kind in config.camera.mirrors if kind.endswith(match[2]))
    points = 2 * f["Greg/density_points"] - 1
    nearby = points + config.loss.density_step * f["Greg/density_perturbation_std1"]
    inputs = losses.StepInputs(f["z"], f["intrinsics"], kind, stochastic=False)
    return Step(networks, inputs, losses.RealBatch(f["real_seed_image"]), points, nearby)


def run_phase(step: Step, name: str) -> Outcome:
    """Loss and gradients of one of PHASES, rays sampled at the middles of their intervals."""
    generator, discriminator = step.networks
    plain, real = losses.DiscriminatorTransform(), step.real
    with _scores_given_by(discriminator) as scores:
        if name == "Gmain":
            phase = losses.generator_main(generator, discriminator, step.inputs, plain)
        elif name == "Greg":
            phase = losses.generator_density(generator, step.inputs.z, step.points, step.nearby)
        elif name == "Dmain":
            phase = losses.discriminator_main(generator, discriminator, step.inputs, real, plain)
        else:
            phase = losses.discriminator_r1(generator, discriminator, real, plain)
    trained = generator if name.startswith("G") else discriminator
    names, parameters = zip(*trained.named_parameters(), strict=True)
    gradients = torch.autograd.grad(phase.loss, parameters, allow_unused=True)
    reports = _reports(name, phase, scores, generator.config.loss)
    return Outcome(reports, dict(zip(names, gradients, strict=True)))


@contextlib.contextmanager
def _scores_given_by(discriminator: Discriminator) -> Iterator[list[Tensor]]:
    scores: list[Tensor] = []

    def keep(module, inputs, options, output):  # batch by batch
        scores.extend(output.score.chunk(options.get("batches", 1)))

    hook = discriminator.register_forward_hook(keep, with_kwargs=True)
    try:
        yield scores
    finally:
        hook.remove()


def _reports(
    name: str, phase: losses.Phase, scores: list[Tensor], weights: LossConfig
) -> dict[str, float]:
    """Everything that the reference reports of a phase, under its names."""
    terms = {key: value.mean() for key, value in phase.terms.items()}
    if name == "Gmain":
        reports = {
            "Loss/G/loss": terms["G/loss_own_view"],
            "Loss/G/loss_flip": terms["G/loss_mirrored"],
            "Loss/G/posegloss": terms["G/pose_consistency"] * weights.pose_consistency_weight,
        }
    elif name == "Dmain":
        reports = {
            "Loss/D/loss_Dcam": terms["D/pose_error"],
            "Loss/D/loss_Dgen": terms["D/loss_own_view"],
            "Loss/D/loss_Dgen_flip": terms["D/loss_mirrored"],
            "Loss/D/loss": phase.loss - terms["D/pose_error"] * weights.pose_weight,
        }
    elif name == "Dreg":
        reports = {"Loss/r1_penalty": terms["D/r1_penalty"], "Loss/D/reg": phase.loss}
    else:
        reports = {}
    judged = ("real",) if name == "Dreg" else ("fake", "fake_flip", "real")
    for which, score in zip(judged, scores, strict=False):
        reports[f"Loss/scores/{which}"] = score.mean()
        reports[f"Loss/signs/{which}"] = score.sign().mean()
    return {key: value.item() for key, value in reports.items()}


def check_phase(f: Fixture, name: str) -> list[Quantity]:
    """Reports, gradients and their norms; units that lie on a kink get the reference's slope."""
    step = step_of(f)
    outcome = run_phase(step, name)
    reports = compare_reports(f, name, outcome)
    gradients = compare_gradients(f, name, outcome)
    if _all_ok(reports) and not _all_ok(gradients):
        gradients = settle_kinks(f, name, step, gradients)
    return reports + gradients


def compare_reports(f: Fixture, name: str, outcome: Outcome) -> list[Quantity]:
    quantities = []
    for key, (theirs,) in f.json(f"{name}/reports").items():
        ours = outcome.reports.get(key, math.nan)  # a report unknown here is a miss
        error = relative_error(torch.tensor(ours), torch.tensor(theirs))
        quantities.append(Quantity(f"{name}/{key}", error, OUTPUT_TOLERANCE))
    return quantities


def compare_gradients(f: Fixture, name: str, outcome: Outcome) -> list[Quantity]:
    """The norm of every gradient, the values of those that are stored, and which there are."""
    norms = dict(zip(f.json(f"{name}/grad_names"), f[f"{name}/grad_norms"], strict=True))
    largest = max(norms.values()).item()
    stored = f.below(f"{name}/grad/")
    quantities = []
    for key, norm in norms.items():
        theirs = f[f"{name}/grad/{key}"] if key in stored else None
        ours = outcome.gradients.get(key)
        if ours is None:
            ours = torch.zeros(()) if theirs is None else torch.zeros_like(theirs)
        pairs = {f"{name}/norm/{key}": (ours.norm(), norm)}
        if theirs is not None:
            pairs[f"{name}/grad/{key}"] = (ours, theirs)
        for label, pair in pairs.items():
            if norm < NEGLIGIBLE * largest:
                error = relative_error(*pair, scale=largest)
                label += " (relative to the phase's largest)"
                quantities.append(Quantity(label, error, 10 * NEGLIGIBLE))
            else:
                quantities.append(Quantity(label, relative_error(*pair), GRADIENT_TOLERANCE))
    strangers = [
        key
        for key, gradient in outcome.gradients.items()
        if gradient is not None and key not in norms and not key.endswith("noise_strength")
    ]
    quantities.append(Quantity(f"{name}/number of gradients too many", len(strangers), 0))
    return quantities


def _all_ok(quantities: Iterable[Quantity]) -> bool:
    return all(quantity.ok for quantity in quantities)


# --- Kinks (see tests/kinks.py)

NOTICEABLE = 1e-4  # share of a gradient that a unit must account for to be tried
LARGEST_EFFECT = 0.1  # relative error of a gradient beyond which kinks are no explanation
MOST_TRIALS = 8


def settle_kinks(f: Fixture, name: str, step: Step, missing: list[Quantity]) -> list[Quantity]:
    """The gradients of a phase with some units on the other side of their kinks, and those units.

    missing: the gradients as they are; they come back unchanged if no such units explain them.
    """
    if max(quantity.error for quantity in missing) > LARGEST_EFFECT:
        return missing
    with KinkWatch(step.networks) as watch:
        outcome = run_phase(step, name)
    moved: list[Unit] = []
    best = missing
    for unit in _suspects(f, name, step, outcome, watch.units)[:MOST_TRIALS]:
        with KinkWatch(step.networks, [*moved, unit]):
            trial = compare_gradients(f, name, run_phase(step, name))
        if _total_error(trial) < 0.9 * _total_error(best):
            best, moved = trial, [*moved, unit]
        if _all_ok(best):
            return best + [
                Quantity(
                    f"{name}/unit {unit.index} of {unit.layer} lies on its kink: |x| in units of "
                    "the layer's RMS (other slope taken)",
                    unit.distance,
                    ON_KINK,
                )
                for unit in moved
            ]
    return missing


def _total_error(quantities: list[Quantity]) -> float:
    return sum(quantity.error for quantity in quantities)


def _suspects(f: Fixture, name: str, step: Step, outcome: Outcome, units: list[Unit]) -> list[Unit]:
    """The units worth a trial, the most promising first.

    A bias's gradient is the sum of its channel's, so how a unit would change it is known exactly:
    first come the units that explain the largest part of what their layer's bias gradient lacks.
    The others follow by their share: those in layers that this phase does not train, and, where the
    loss is itself a gradient (R1) and the sum does not hold, all of them.
    """
    trained = step.networks.generator if name.startswith("G") else step.networks.discriminator
    explaining: list[tuple[float, Unit]] = []
    others: list[tuple[float, Unit]] = []
    for unit in units:
        bias = f"{unit.layer}.bias"
        if name == "Dreg" or outcome.gradients.get(bias) is None:
            others.append((unit.share, unit))
            continue
        theirs = f[f"{name}/grad/{bias}"]
        lacking = (theirs - outcome.gradients[bias])[unit.channel].item()
        change = unit.change * getattr(trained.get_submodule(unit.layer), "bias_gain", 1)
        explained = (abs(lacking) - abs(lacking - change)) / theirs.norm().item()
        explaining.append((explained, unit))
    return [
        unit
        for group in (explaining, others)
        for weight, unit in sorted(group, key=lambda pair: -pair[0])
        if weight > NOTICEABLE
    ]


# --- The command line

Check = Callable[[Fixture], Iterable[Quantity]]

# Beginning of a file's name -> the checks of such a file.
CHECKS: dict[str, dict[str, Check]] = {
    "cameras": {"cameras": check_cameras},
    "ops": {
        "upfirdn2d": check_upfirdn2d,
        "bias_act": check_bias_act,
        "modulated_conv2d": check_modulated_conv2d,
        "conv2d_resample": check_conv2d_resample,
        "minibatch_std": check_minibatch_std,
    },
    "renderer_": {"renderer": check_renderer},
    "networks_": {"networks": check_networks},
    "loss_": {phase: partial(check_phase, name=phase) for phase in PHASES},
}


def checks_of(name: str) -> dict[str, Check]:
    """The checks of the file of that name, by their own names; none for an unknown file."""
    return next((checks for start, checks in CHECKS.items() if name.startswith(start)), {})


def _attempt(check: Check, path: Path) -> Iterator[Quantity]:
    """The quantities of a check; a file that cannot be read or used is a miss."""
    try:
        yield from check(Fixture(path))
    except (UserError, KeyError, RuntimeError, ValueError) as error:
        yield Quantity(f"cannot be checked: {str(error).splitlines()[0]}", math.inf, 0)


def check_file(path: Path) -> Iterator[Quantity]:
    """The quantities of a file; none for a file of unknown kind."""
    from . import parity_geod  # which builds on this module

    if path.name.startswith("geod_"):
        yield from parity_geod.check_file(path)
    for check in checks_of(path.stem).values():
        yield from _attempt(check, path)


@click.command(cls=Command)
@click.argument("directory", type=click.Path(path_type=Path))
def main(directory: Path) -> None:
    """Check every file of reference tensors in DIRECTORY."""
    if not directory.is_dir():
        raise UserError(f"there is no directory {directory}")
    misses = total = 0
    for path in sorted({*directory.glob("*.npz"), *directory.glob("geod_*")}):
        before = total
        for quantity in check_file(path):
            click.echo(f"{quantity}  [{path.name.partition('.')[0]}]")
            misses += not quantity.ok
            total += 1
        if total == before:
            old = path.stem.startswith("legacy")
            reason = "old checkpoints have a check of their own" if old else "unknown kind of file"
            click.echo(f"skip  {path.stem}: {reason}")
    if not total:
        raise UserError(
            f"{directory} holds no reference tensors (cameras.npz, networks_*.npz, ...)"
        )
    click.echo(f"{total} quantities, {misses} missed")
    sys.exit(misses > 0)


if __name__ == "__main__":
    main()
