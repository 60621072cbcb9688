"""Compare GeoD with tensors that the published implementation computed in float64.

`python -m tests.parity DIR` checks every geod_* file in DIR, of any seed. A file from which
something was left out is checked in what it has; a quantity that no check knows is a miss.
Known files:

    geod_formation_seedN.npz      image formation, without networks
    geod_small_seedN.npz          one step of the inverse renderer, and three of its optimizer
    geod_full_seedN.npz           the same at the published width
    geod_small_params_seedN.npz   the small network's parameters
    geod_generator_seedN.npz      the generator's term, of given depths and images
    geod_endtoend_seedN.npz       the same on the generator of networks_ffhq_128.npz
    geod_legacy_ir.pkl.gz         a published inverse renderer
    geod_schedule.json            the term's weight

Parameters are not stored but follow from the seed, see `parameters_by_rule`.
"""

import gzip
import json
import math
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dnnlib import UserError
from torch_utils.images import resize
from training import geod, losses
from training.config import GeodConfig
from training.files import safe_unpickle
from training.files.legacy_inverse_renderer import load_inverse_renderer
from training.networks import image_formation
from training.networks.generator import Generator
from training.networks.image_formation import Frustum, surface_normals
from training.networks.inverse_renderer import InverseRenderer
from training.networks.perceptual import VGGFeatures

from . import parity
from .parity import NEGLIGIBLE, Fixture, Quantity, relative_error

VALUE = 1e-6
GRID = 1e-5  # its leaf is a depth that was rounded to float32
FORMATION_GRADIENT = 1e-6
GRADIENT = 1e-5
STEPS = 1e-5  # totals around the optimizer's steps, and what parameters moved
ENDTOEND_VALUE = 1e-5
ENDTOEND_GRADIENT = 1e-4
SCHEDULE = 1e-6  # stored values are float32

WIDTHS = {True: 16, False: 64}  # by whether the network is small
LAST_LAYER_SPREADS = {
    "netD.network.42.weight": 0.04,
    "netA.network.42.weight": 1.0,
    "netL.network.10.weight": 1.5,
    "netV.network.10.weight": 0.8,
    "netC.out_net1.6.weight": 1.0,
    "netC.out_net2.0.weight": 1.0,
}
COTANGENT_SEED, RESIZED_COTANGENT_SEED = 700_000, 820_000
PLAIN = GeodConfig(weight_end=0.1)


class Checked(Fixture):
    """A file that remembers what was asked of it."""

    def __init__(self, path: Path):
        super().__init__(path)
        match = re.search(r"_seed(\d+)$", self.name)
        if match is None:
            raise UserError(f"{path} should be named geod_NAME_seedN.npz")
        self.seed = int(match[1])
        self._used: set[str] = set()

    def __contains__(self, key: str) -> bool:
        return key in self._arrays

    def array(self, key: str) -> np.ndarray:
        self._used.add(key)
        return super().array(key)

    def double(self, key: str) -> Tensor:
        return self[key].double()

    def leaf(self, key: str) -> Tensor:
        return self.double(key).requires_grad_()

    def stored(self, named: Mapping[str, Tensor], tolerance: float) -> Iterator[Quantity]:
        """Compare what the file has of `named`: whole, its first half, or every second pixel."""
        for name, ours in named.items():
            for key, part in ((name, ours), (f"{name}_every2", ours[..., ::2, ::2])):
                if key in self:
                    yield self.compare(key, part[: len(self.array(key))], tolerance)

    def unknown(self) -> Quantity:
        strangers = sorted(set(self._arrays) - self._used)
        named = f" ({', '.join(strangers[:4])}, ...)" if strangers else ""
        return Quantity(f"number of quantities that no check knows{named}", len(strangers), 0)


# --- Parameters


def parameters_by_rule(seed: int, width: int) -> dict[str, Tensor]:
    """What the reference's networks were filled with, float32."""
    with torch.device("meta"):
        shapes = {k: v.shape for k, v in InverseRenderer(width=width).state_dict().items()}
    return {
        name: torch.from_numpy(_parameter(name, shapes, 1000 * seed + i)).float()
        for i, name in enumerate(sorted(shapes))
    }


def _parameter(name: str, shapes: Mapping[str, torch.Size], seed: int) -> np.ndarray:
    shape = tuple(shapes[name])
    box_filter = name == "netD.network.42.weight"
    noise = np.random.RandomState(seed).standard_normal((*shape[:2], 1, 1) if box_filter else shape)
    if len(shape) == 1:
        values = 0.1 * noise + name.endswith("weight")
    else:
        gain = LAST_LAYER_SPREADS.get(name, math.sqrt(2))
        values = noise * gain / math.sqrt(_fan(name, shape))
    return np.broadcast_to(values, shape).astype(np.float16)


# Transposed convolutions, and whether they have stride 2.
_TRANSPOSED = {
    **dict.fromkeys((f"net{x}.network.13.weight" for x in "DAC"), False),
    **dict.fromkeys((f"net{x}.network.{i}.weight" for x in "DA" for i in (17, 23, 29)), True),
    **dict.fromkeys((f"netC.network.{i}.weight" for i in (15, 18)), True),
    **dict.fromkeys((f"netC.out_net1.{i}.weight" for i in (0, 3)), True),
}


def _fan(name: str, shape: tuple[int, ...]) -> int:
    if name in _TRANSPOSED:
        return shape[0] * (4 if _TRANSPOSED[name] else 1)
    return math.prod(shape[1:])


def network_by_rule(seed: int, *, small: bool) -> InverseRenderer:
    network = InverseRenderer(width=WIDTHS[small])
    network.load_state_dict(parameters_by_rule(seed, WIDTHS[small]))
    return network.double()


def features_of(f: Checked) -> VGGFeatures:
    state = {f"features.{key}": f[f"features/{key}"] for key in f.below("features/")}
    first, second, third = (len(state[f"features.{i}.bias"]) for i in (0, 5, 10))
    network = VGGFeatures((first, second, third))
    network.load_state_dict(state)
    return network.double()


def cotangent(seed: int, shape: torch.Size) -> Tensor:
    noise = np.random.RandomState(seed).standard_normal(tuple(shape)).astype(np.float16)
    return torch.from_numpy(noise).double()


def check_parameters(f: Checked) -> Iterator[Quantity]:
    rule = parameters_by_rule(f.seed, WIDTHS[True])
    yield from (f.compare(name, ours, 0) for name, ours in rule.items() if name in f)


# --- Image formation


def check_formation(f: Checked) -> Iterator[Quantity]:
    frustum = Frustum()
    depth, view, image = f.leaf("depth"), f.leaf("view"), f.double("image")
    points = frustum.points(depth)
    warped_points = frustum.to_view(points, view)
    warped_depth = frustum.depth_from_view(depth, view)
    warped_normal = surface_normals(frustum.points(warped_depth))
    # What follows starts from the stored depth.
    given = f.leaf("warped_depth")
    grid = frustum.sampling_grid(given, view)
    sampled = torch.nn.functional.grid_sample(image, grid, align_corners=False)
    values = {
        "K": _intrinsics(frustum),
        "rotation": image_formation.rotation_matrix(view[:, :3]),
        "translation": view[:, None, 3:],
        "points": points,
        "warped_points": warped_points,
        "faces": image_formation.grid_faces(depth.device),
        "screen_vertices": frustum.on_screen(warped_points),
        "rendered_depth": frustum.render_depth(warped_points),
        "warped_depth": warped_depth,
        "normal": surface_normals(points),
        "warped_normal": warped_normal,
    }
    yield from f.stored(values, VALUE)
    yield from f.stored({"grid": grid, "sampled": sampled}, GRID)

    outputs = ("warped_depth", "normal", "warped_normal", "grid", "sampled")
    tensors = values | {"grid": grid, "sampled": sampled}
    leaves = {"depth": depth, "view": view, "warped_depth": given}
    for k, name in enumerate(outputs):
        pull = (
            tensors[name] * cotangent(COTANGENT_SEED + 10 * f.seed + k, tensors[name].shape)
        ).sum()
        tolerance = GRID if name in ("grid", "sampled") else FORMATION_GRADIENT
        for leaf in f.below(f"grad/{name}/"):
            (gradient,) = torch.autograd.grad(pull, leaves[leaf], retain_graph=True)
            yield f.compare(f"grad/{name}/{leaf}", gradient, tolerance)
    yield from _check_turned(f, frustum)


def _intrinsics(frustum: Frustum) -> Tensor:
    center = (image_formation.SIZE - 1) / 2
    return torch.tensor([[frustum.focal, 0, center], [0, frustum.focal, center], [0, 0, 1.0]])


def _check_turned(f: Checked, frustum: Frustum) -> Iterator[Quantity]:
    """Pictures of the first object, with the corners' colors swapped as in the reference."""
    points, view = frustum.points(f.double("depth")[:1]), f.double("view")[:1]
    upper, lower = image_formation.corner_colors(f.double("image")[:1]).chunk(2, dim=1)
    colors = torch.cat([upper[:, :, [0, 2, 1]], lower[:, :, [1, 0, 2]]], dim=1)

    def turn(points: Tensor, *degrees: float) -> Tensor:
        views = points.new_zeros(len(degrees), 6)
        views[:, 1] = torch.tensor(degrees).deg2rad()
        turned = frustum.to_view(points.expand(len(degrees), -1, -1, -1), views)
        return frustum.render_colors(turned, colors.expand(len(degrees), -1, -1, -1))

    undone = frustum.from_view(points, -view)
    pictures = {"yaws": turn(points, -40, 0, 40), "yaws_turned": turn(undone, -40)}
    yield from f.stored(pictures, VALUE)


# --- A step of the inverse renderer


def check_step(f: Checked, *, small: bool) -> Iterator[Quantity]:
    network, features = network_by_rule(f.seed, small=small), features_of(f)
    rule = f.json("rule")
    same = rule["seed"] == f.seed and rule["small"] == small
    yield Quantity("rule of parameters: differs from the name", float(not same), 0)
    photographs = f.double("reals") / 127.5 - 1
    image = resize(photographs, image_formation.SIZE)
    parts, confidence = network(image), network.confidence(image)
    terms = geod.decomposition_terms(parts, image, features, network.frustum, confidence=confidence)
    values = {
        "input": image,
        "canon_depth_raw": network.netD(image)[:, 0],
        "canon_depth": parts.geometry.canonical_depth,
        "canon_albedo": parts.albedo,
        "canon_light_a": parts.light.ambient,
        "canon_light_b": parts.light.diffuse,
        "canon_light_d": parts.light.direction,
        "view": parts.geometry.view,
        "canon_normal": parts.canonical_normal,
        "canon_diffuse_shading": parts.diffuse_shading,
        "canon_im": parts.canonical_image,
        "recon_depth": parts.geometry.depth,
        "recon_normal": parts.geometry.normal,
        "grid": parts.grid,
        "recon_im": parts.reconstruction,
        "conf_sigma_l1": confidence.pixels,
        "conf_sigma_percl": confidence.features,
    }
    yield from f.stored(values, VALUE)
    yield from f.stored(
        {
            "features_recon": features(parts.reconstruction),
            "features_input": features(image),
        },
        VALUE,
    )
    yield from f.stored({"mask_both": parts.geometry.mask[:, 0]}, 0)
    stored_terms = f.json("terms")
    without = stored_terms["without_confidence"]
    plain = geod.decomposition_terms(parts, image, features, network.frustum, confidence=None)
    yield from _compare_terms(without, plain, "without_confidence/")
    yield from _compare_terms(stored_terms, terms)
    yield from _compare_step_gradients(f, network, values, terms)
    yield from _check_optimizer(f, network, features, photographs)


def _compare_terms(
    theirs: Mapping[str, Any], ours: geod.DecompositionTerms, prefix: str = ""
) -> Iterator[Quantity]:
    smooth = PLAIN.model_copy(update={"smoothness_weight": 1.0})
    named = {
        "photometric": ours.photometric[0],
        "photometric_flip": ours.photometric[1],
        "perceptual": ours.perceptual[0],
        "perceptual_flip": ours.perceptual[1],
        "depth_smoothness": ours.smoothness,
        "total": ours.total(PLAIN),
        "total_with_depth_smoothness_weight_1": ours.total(smooth),
    }
    for name, value in theirs.items():
        if isinstance(value, float):
            yield _compare_number(prefix + name, named[name], value)


def _compare_number(name: str, ours: Tensor, theirs: float, tolerance: float = VALUE) -> Quantity:
    return Quantity(name, relative_error(ours, torch.tensor(theirs).double()), tolerance)


def _compare_step_gradients(
    f: Checked,
    network: InverseRenderer,
    values: dict[str, Tensor],
    terms: geod.DecompositionTerms,
) -> Iterator[Quantity]:
    total = terms.total(PLAIN)
    yield from _compare_parameter_gradients(f, network, total, "grad_norms")
    smooth = terms.total(PLAIN.model_copy(update={"smoothness_weight": 1.0}))
    yield from _compare_parameter_gradients(
        f, network, smooth, "grad_norms_with_depth_smoothness_weight_1", stored=""
    )
    for name in f.below("grad_of/"):
        source, theirs = values[name.removesuffix("_flip")], f.double(f"grad_of/{name}")
        (ours,) = torch.autograd.grad(total, source, retain_graph=True)
        if name.startswith("conf_"):
            ours = ours[:, [int(name.endswith("_flip"))]]
        if len(theirs) == 2 * len(ours):  # light and view are the same for both halves
            theirs = theirs[: len(ours)] + theirs[len(ours) :]
        yield Quantity(f"grad_of/{name}", relative_error(ours, theirs), GRADIENT)


def _compare_parameter_gradients(
    f: Checked,
    network: torch.nn.Module,
    loss: Tensor,
    norms: str,
    *,
    stored: str = "grad/",
    tolerance: float = GRADIENT,
) -> Iterator[Quantity]:
    """stored: the beginning of the keys of those gradients that are there in full."""
    parameters = dict(network.named_parameters())
    names = f.json("grad_names")
    gradients = torch.autograd.grad(
        loss, [parameters[name] for name in names], retain_graph=True, allow_unused=True
    )
    lengths = f.double(norms)
    negligible = NEGLIGIBLE * lengths.max().item()
    for name, ours, length in zip(names, gradients, lengths, strict=True):
        ours = torch.zeros_like(parameters[name]) if ours is None else ours
        scale = max(length.item(), negligible)
        error = relative_error(ours.norm(), length, scale)
        yield Quantity(f"{norms}/{name}", error, tolerance)
        if stored and f"{stored}{name}" in f:
            error = relative_error(ours, f.double(f"{stored}{name}"), scale)
            yield Quantity(f"{stored}{name}", error, tolerance)


def _check_optimizer(
    f: Checked, network: InverseRenderer, features: VGGFeatures, photographs: Tensor
) -> Iterator[Quantity]:
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    optimizer = geod.optimizer_of(network, PLAIN)
    totals = f.json("terms")["totals_before_step_1_2_3_and_after"]
    for step, theirs in enumerate(totals):
        loss = geod.inverse_renderer_main(network, features, photographs, PLAIN).loss
        yield _compare_number(f"total after {step} optimizer steps", loss, theirs, STEPS)
        if step < len(totals) - 1:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    after = dict(network.named_parameters())
    for name in f.below("moved_in_3_steps/"):
        ours = after[name].detach() - before[name]
        yield f.compare(f"moved_in_3_steps/{name}", ours, STEPS)


# --- The generator's term


def check_generator(f: Checked) -> Iterator[Quantity]:
    network = network_by_rule(f.seed, small=True).requires_grad_(False)
    frustum = network.frustum
    depth, image = f.leaf("depth"), f.leaf("image")
    normal = geod.normals_of_depth(depth, frustum)
    target = network.geometry(resize(image, image_formation.SIZE))
    seen_normal = target.normal.chunk(2)[0]
    loss = geod.normal_loss(normal, seen_normal, target.mask[:, 0])
    values = {
        "normal_map": _channels_first(normal),
        "ir_input": resize(image, image_formation.SIZE),
        "ir_normal": _channels_first(seen_normal),
    }
    yield from f.stored(values, VALUE)
    yield from f.stored({"mask": target.mask[:, 0]}, 0)
    theirs = f.json("terms")
    yield f.compare("loss", loss, VALUE)
    yield _compare_number("terms/loss", loss, theirs["loss"])
    whole = geod.normal_consistency(network, depth, image, torch.eye(3), PLAIN)
    yield _compare_number("terms/loss, in one call", whole, theirs["loss"])

    at_depth, at_image = torch.autograd.grad(whole, (depth, image))
    (at_normal,) = torch.autograd.grad(loss, normal)
    yield f.compare("grad/depth", at_depth, GRADIENT)
    yield f.compare("grad/image", at_image, GRADIENT)
    yield f.compare("grad/normal_map", _channels_first(at_normal), GRADIENT)

    with_holes = normal.detach() * (1 - f.double("holes"))[..., None]
    with_holes.requires_grad_()
    loss = geod.normal_loss(with_holes, seen_normal.detach(), target.mask[:, 0])
    (at_normal,) = torch.autograd.grad(loss, with_holes)
    yield _compare_number("terms/loss_with_holes", loss, theirs["loss_with_holes"])
    yield f.compare("grad_with_holes/normal_map", _channels_first(at_normal), GRADIENT)

    for size in f.below("normal_map_"):
        depth = f.leaf(f"depth_{size}")
        normal = _channels_first(geod.normals_of_depth(depth, frustum))
        yield f.compare(f"normal_map_{size}", normal, VALUE)
        pull = (normal * cotangent(RESIZED_COTANGENT_SEED + f.seed, normal.shape)).sum()
        (gradient,) = torch.autograd.grad(pull, depth)
        yield f.compare(f"grad_{size}/depth", gradient, GRADIENT)


def check_endtoend(f: Checked) -> Iterator[Quantity]:
    network = network_by_rule(f.seed, small=True).requires_grad_(False)
    generator = _published_generator(f.path.parent)
    intrinsics = f.double("intrinsics")
    inputs = losses.StepInputs(f.double("z"), intrinsics, mirror=None, stochastic=False)
    generated = losses.generate(generator, inputs)
    (view,), pose = generated.views, generated.poses.pose
    normal = geod.normals_of_depth(view.depth, network.frustum)
    image = resize(view.image, image_formation.SIZE)
    target = network.geometry(image)
    seen_normal = target.normal.chunk(2)[0]
    loss = geod.normal_loss(normal, seen_normal, target.mask[:, 0])
    values = {
        "pose": pose,
        "depth": view.depth,
        "normal_map": _channels_first(normal),
        "ir_input": image,
        "ir_normal": _channels_first(seen_normal),
    }
    yield from f.stored(values, ENDTOEND_VALUE)
    yield f.compare("loss", loss, ENDTOEND_VALUE)
    yield from f.stored({"mask": target.mask[:, 0]}, 0)
    yield from _compare_parameter_gradients(
        f, generator, loss, "grad_norms", tolerance=ENDTOEND_GRADIENT
    )
    sources = {"depth": view.depth, "normal_map": normal, "pose": pose, "image": view.image}
    found = torch.autograd.grad(loss, list(sources.values()), retain_graph=True)
    gradients = dict(zip(sources, found, strict=True))
    gradients["normal_map"] = _channels_first(gradients["normal_map"])
    named = {f"grad_of/{name}": gradient for name, gradient in gradients.items()}
    yield from f.stored(named, ENDTOEND_GRADIENT)
    yield f.compare("grad_of/image_norm", gradients["image"].norm(), ENDTOEND_GRADIENT)
    for name in f.json("no_gradient"):
        (ours,) = torch.autograd.grad(
            loss, generator.get_parameter(name), retain_graph=True, allow_unused=True
        )
        yield Quantity(f"no_gradient/{name}", 0.0 if ours is None else ours.norm().item(), 0)


def _published_generator(directory: Path) -> Generator:
    """That of networks_ffhq_128.npz, from beside the file or from the tests' own data."""
    name = "networks_ffhq_128.npz"
    found = [d / name for d in (directory, parity.DATA) if (d / name).is_file()]
    if not found:
        raise UserError(f"there is no {name} in {directory} nor in {parity.DATA}")
    generator = parity.networks_of(Fixture(found[0])).generator.double()
    with torch.no_grad():
        for name, parameter in generator.named_parameters():
            if name.endswith("noise_strength"):
                parameter.zero_()
    return generator


def _channels_first(normal: Tensor) -> Tensor:
    return normal.permute(0, 3, 1, 2)


# --- The schedule and published files


def check_schedule(path: Path) -> Iterator[Quantity]:
    """The weight of every row; where the start exceeds the end ours moves, theirs does not."""
    stored = json.loads(path.read_text())
    for index, theirs in enumerate(stored["settings"]):
        rows = [row[1:] for row in stored["rows"] if row[0] == index]
        ours = _schedule_settings(theirs)
        if ours.weight_start > ours.weight_end:  # broken there: compare when it is computed
            pairs = [
                (float(geod.normal_weight(ours, *row[:2]) > 0), float(row[2] is not None))
                for row in rows
            ]
        else:
            pairs = [(geod.normal_weight(ours, *row[:2]), row[2] or 0.0) for row in rows]
        errors = [abs(a - b) / (b or 1.0) for a, b in pairs]
        yield Quantity(f"setting {index}, {len(rows)} points", max(errors), SCHEDULE)


def _schedule_settings(theirs: Mapping[str, float]) -> GeodConfig:
    constant = theirs["normal_end_step"] == -1
    return GeodConfig(
        weight_start=theirs["normal_gamma_start"],
        weight_end=theirs["normal_gamma_start" if constant else "normal_gamma_end"],
        start_kimg=theirs["normal_start_step"],
        end_kimg=theirs["normal_start_step" if constant else "normal_end_step"],
        stop_kimg=theirs["normal_gamma_stop"],
        interval=int(theirs["geod_interval"]),
        interval_from_kimg=theirs["geod_interval_start"],
    )


def check_legacy(path: Path) -> Iterator[Quantity]:
    """Each tensor of the file is constant: its place among the sorted names, over 128."""
    data = bytearray(gzip.decompress(path.read_bytes()))
    root = safe_unpickle.as_dict(safe_unpickle.load(memoryview(data)))
    state = load_inverse_renderer(root["IR"], len(data)).state_dict()
    for i, name in enumerate(sorted(state)):
        yield Quantity(name, (state[name] - i / 128).abs().max().item(), 0)


# --- The command line

Check = Callable[[Checked], Iterator[Quantity]]

CHECKS: dict[str, Check] = {
    "geod_formation_": check_formation,
    "geod_small_params_": check_parameters,
    "geod_small_": partial(check_step, small=True),
    "geod_full_": partial(check_step, small=False),
    "geod_generator_": check_generator,
    "geod_endtoend_": check_endtoend,
}


def check_file(path: Path) -> Iterator[Quantity]:
    """The quantities of a file, none for one of another kind. An unreadable file is a miss."""
    try:
        if path.name == "geod_schedule.json":
            yield from check_schedule(path)
        elif path.name == "geod_legacy_ir.pkl.gz":
            yield from check_legacy(path)
        elif path.suffix == ".npz":
            check = next((c for start, c in CHECKS.items() if path.name.startswith(start)), None)
            if check is not None:
                f = Checked(path)
                yield from check(f)
                yield f.unknown()
    except (UserError, KeyError, RuntimeError, ValueError, OSError, EOFError, zlib.error) as error:
        yield Quantity(f"cannot be checked: {str(error).splitlines()[0]}", math.inf, 0)
