"""The generator: latent -> camera pose and tri-planes -> rendering -> image.

    z --mapping--> w --pose head--> pose --> camera ----.
                   |                                    v
                   '--backbone--> tri-planes --> volume rendering --> super-resolution --> image

PoF3D (Shi et al. 2023), section 3.2, on the tri-plane generator of EG3D (Chan et al. 2022).
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from dnnlib import UserError
from torch_utils.ops import triplane_render
from torch_utils.ops.triplane_render import FieldSamples
from training import cameras, pose_sources
from training.config import Config
from training.networks.backbone import Backbone, SynthesisNetwork
from training.networks.background import Background
from training.networks.mapping import GeneratorMapping, PoseMapping
from training.networks.rendering import Decoder, midpoint_sampling, random_sampling, render_objects
from training.networks.superresolution import SuperResolution


class Latent(NamedTuple):
    """Intermediate latents and poses.

    w: [B, w_dim], untruncated. ws: [B, num_ws, w_dim], one per layer, the background's last.
    pose: [B, 2] in radians, None for a generator whose poses are given.
    """

    w: Tensor
    ws: Tensor
    pose: Tensor | None


class View(NamedTuple):
    """Renderings of V views of each of B objects.

    image: [B, V, 3, R, R] and raw: [B, V, 3, r, r] in [-1, 1]; depth: [B, V, 1, r, r], distance
    from the camera in world units; opacity: [B, V, 1, r, r] in [0, 1].
    """

    image: Tensor
    raw: Tensor
    depth: Tensor
    opacity: Tensor

    def select(self, view: int) -> "View":
        """One of the V views, without its dimension."""
        return View(*(part[:, view] for part in self))


class Generator(nn.Module):
    """Build with a `Config`; parameter names are those of published checkpoints."""

    intrinsics: Tensor

    def __init__(self, config: Config):
        super().__init__()
        sizes = config.generator
        self.config = config
        self.raw_resolution = config.rendering.raw_resolution  # the training loop may let it grow
        synthesis = SynthesisNetwork(
            sizes.w_dim,
            sizes.plane_resolution,
            3 * sizes.plane_channels,
            channel_base=sizes.channel_base,
            channel_max=sizes.channel_max,
        )
        self.pose_source = pose_sources.build(config)
        self.backbone = Backbone(self._mapping(), synthesis, sizes)
        self.decoder = Decoder(sizes.plane_channels, sizes.decoder_hidden, sizes.feature_channels)
        self.superresolution = (
            SuperResolution(sizes.feature_channels, sizes.w_dim, config.data.resolution)
            if config.super_resolved
            else None
        )
        self.background = (
            Background(sizes.w_dim, sizes.feature_channels) if sizes.background else None
        )
        self.num_object_ws = synthesis.num_ws
        self.num_ws = synthesis.num_ws + (self.background.num_ws if self.background else 0)
        focal = config.camera.focal
        self.register_buffer("intrinsics", cameras.intrinsics_from_focal(focal), persistent=False)

    def _mapping(self) -> GeneratorMapping:
        sizes, settings = self.config.generator, self.config.camera
        z_dim, w_dim, layers = sizes.z_dim, sizes.w_dim, sizes.mapping_layers
        if label_dim := self.pose_source.label_dim:
            return GeneratorMapping(z_dim, label_dim, w_dim, layers=layers)
        mapping = PoseMapping(z_dim, w_dim, layers=layers, mean_h=settings.mean_h)
        if settings.init_std is not None:
            mapping.spread_poses(settings.init_std)
        return mapping

    @property
    def mapping(self) -> GeneratorMapping:
        """The mapping network, z -> w, with the pose head where poses are learned."""
        return self.backbone.mapping

    def set_inner_dtype(self, dtype: torch.dtype | None) -> None:
        """Precision of activations: fp16 in super-resolution alone, bf16 elsewhere too."""
        for part in self.modules():
            if isinstance(part, SynthesisNetwork):
                part.inner_dtype = dtype if dtype == torch.bfloat16 else None
        if self.superresolution is not None:
            self.superresolution.inner_dtype = dtype

    def latent(
        self,
        z: Tensor,
        label: Tensor | None = None,
        *,
        truncation: Tensor | float = 1,
        cutoff: int | None = None,
    ) -> Latent:
        """Map latents to intermediate ones and to poses.

        Args:
            z: [B, z_dim].
            label: [B, 25], cameras that a generator whose poses are given (EG3D) is conditioned on:
                cam2world and intrinsics, row by row.
            truncation: 1 leaves ws as they are, 0 replaces them by the mean. A learned pose comes
                from the untruncated w.
            cutoff: how many ws, from the first on, are truncated; None: all.

        Raises:
            UserError: where a label is needed and not given.
        """
        w = self.mapping(z, label)
        pose = self.pose_source.of_latent(self, z, w)
        ws = self.mapping.broadcast(w, self.num_ws, truncation, cutoff)
        return Latent(w, ws, pose)

    def pose_head(self, w: Tensor) -> Tensor:
        """w: [B, w_dim] -> (h, v): [B, 2] in radians, clamped to the configured range.

        Raises:
            UserError: for a generator whose poses are not learned.
        """
        if not isinstance(self.mapping, PoseMapping):
            raise UserError(f"camera.poses={self.config.camera.poses}: there is no pose head")
        h, v = self.mapping.pose(w).unbind(-1)
        settings = self.config.camera
        if settings.range_h is not None:
            h = h.clamp(*settings.range_h)
        if settings.range_v is not None:
            v = v.clamp(*settings.range_v)
        return torch.stack([h, v], dim=-1)

    def cam2world(self, pose: Tensor) -> Tensor:
        """pose: [B, 2] in radians -> [B, 4, 4]; see `cameras.cam2world_from_pose`."""
        settings = self.config.camera
        return cameras.cam2world_from_pose(pose, settings.radius, settings.pivot)

    def pose_from_degrees(self, directions: Tensor) -> Tensor:
        """(yaw, pitch) [..., 2] in degrees around the canonical view -> (h, v) [..., 2]."""
        return cameras.pose_from_degrees(directions, self.config.camera.mean_h)

    def degrees_from_pose(self, pose: Tensor) -> Tensor:
        """The inverse of `pose_from_degrees`."""
        return cameras.degrees_from_pose(pose, self.config.camera.mean_h)

    def planes(self, ws: Tensor, noise: str = "const") -> Tensor:
        """Tri-planes of ws: [B, num_ws, w_dim] -> [B, 3, C, H, W].

        noise: 'random', drawn for each sample; 'const', the layers' stored noise; or 'none', as is
        any choice for a generator without noise.
        """
        noise = noise if self.config.generator.noise else "none"
        return self.backbone.planes(ws[:, : self.num_object_ws], noise)

    def field(self, planes: Tensor, points: Tensor) -> FieldSamples:
        """Density (before softplus) and color at points [B, N, 3] in world units.

        planes: [B, 3, C, H, W]. See `torch_utils.ops.triplane_render`.
        """
        rendering = self.config.rendering
        return triplane_render(
            planes,
            points,
            self.decoder.effective(),
            box_warp=rendering.box_warp,
            axes=rendering.plane_axes,
        )

    def render(
        self,
        planes: Tensor,
        ws: Tensor,
        cam2world: Tensor,
        intrinsics: Tensor | None = None,
        *,
        stochastic: bool = False,
        resolution: int | None = None,
    ) -> View:
        """Render every object from V cameras.

        Args:
            planes: [B, 3, C, H, W].
            ws: [B, num_ws, w_dim], for super-resolution and background.
            cam2world: [B, V, 4, 4].
            intrinsics: [B, 3, 3] or [3, 3], normalized by image size; None: the config's.
            stochastic: sample depths along rays at random, as in training.
            resolution: pixels a side of the raw rendering (None: `raw_resolution`);
                super-resolution makes the same image size of any.
        """
        batch, views = cam2world.shape[:2]
        size, config = resolution or self.raw_resolution, self.config.rendering
        intrinsics = self.intrinsics if intrinsics is None else intrinsics
        intrinsics = intrinsics.expand(batch, 3, 3).repeat_interleave(views, dim=0)
        rays = cameras.rays_from_cameras(cam2world.flatten(0, 1), intrinsics, size)
        # All views of an object share its planes: their rays stand side by side.
        rays = cameras.Rays(*(part.reshape(batch, views * size * size, 3) for part in rays))
        sampling = (random_sampling if stochastic else midpoint_sampling)(rays, config)
        rendered = render_objects(planes, self.decoder.effective(), rays, config, sampling)
        features, depth, opacity = (
            part.reshape(batch * views, size, size, -1).permute(0, 3, 1, 2) for part in rendered
        )
        if self.background is not None:
            features = self.background(ws[:, self.num_object_ws :], features, opacity)
        raw = image = features[:, :3]
        if self.superresolution is not None:
            last = ws[:, self.num_object_ws - 1]
            image = self.superresolution(features, last.repeat_interleave(views, dim=0))
        return View(*(part.unflatten(0, (batch, views)) for part in (image, raw, depth, opacity)))

    def forward(
        self,
        z: Tensor,
        intrinsics: Tensor | None = None,
        *,
        truncation: float = 1,
        cutoff: int | None = None,
        noise: str = "const",
    ) -> View:
        """One image of each latent z [B, z_dim] from its own pose: a `View` with V = 1.

        The other arguments are those of `latent`, `planes` and `render`.

        Raises:
            UserError: for a generator whose poses are given.
        """
        latent = self.latent(z, truncation=truncation, cutoff=cutoff)
        if latent.pose is None:
            raise UserError("this generator's poses are given: call latent, planes and render")
        planes = self.planes(latent.ws, noise)
        cam2world = self.cam2world(latent.pose)[:, None]
        return self.render(planes, latent.ws, cam2world, intrinsics)
