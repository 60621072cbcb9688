"""Videos of a trained network as files: the options of `pof3d videos`, checked and carried out."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from dnnlib import UserError
from training.networks.generator import Generator
from training.outputs import videos
from training.outputs.objects import Selection
from training.outputs.videos import Look

FRAMES = 48  # of a round
FRAMES_BETWEEN = 24  # from one keyframe to the next
MOST_FRAMES = 100_000  # of a video; they must fit in memory


@dataclass(frozen=True)
class VideoOptions:
    """What to show and where to write it; the fields are the options of `pof3d videos`.

    Raises:
        UserError: where they contradict each other, or nothing can be written there.
    """

    dest: Path | None = None
    outdir: Path | None = None
    seeds: Sequence[int] = range(8)
    latent: Sequence[Path] = ()
    trunc: float = 0.7
    trunc_cutoff: int | None = None
    fov_deg: float | None = None
    frames: int | None = None
    fps: int = 16
    trajectory: str | None = None
    yaw: float = 35.0
    pitch: float = 10.0
    image_mode: str = "image"
    grid: tuple[int, int] | None = None
    interpolate: bool = False
    num_keyframes: int | None = None
    w_frames: int | None = None
    mesh: bool = False
    shape_res: int = 128
    render_size: int | None = None
    enlarge: int = 1

    def __post_init__(self) -> None:
        if (self.dest is None) == (self.outdir is None):
            raise UserError("write either --dest FILE.mp4 or --outdir FOLDER")
        if self.dest is not None:
            videos.check_video(self.dest)
        if self.interpolate:
            self._check_interpolation()
        elif self.num_keyframes or self.w_frames:
            raise UserError("--num-keyframes and --w-frames are of --interpolate; add it")
        elif self.outdir is not None and self.grid is not None:
            raise UserError("--outdir makes a video of each seed; with --grid write --dest FILE")
        elif self.grid is not None and len(self.selection) > self.grid[0] * self.grid[1]:
            columns, rows = self.grid
            raise UserError(f"--grid {columns}x{rows} does not hold {len(self.selection)} seeds")
        if self.frame_count > MOST_FRAMES:
            raise UserError(f"a video of {self.frame_count} frames, more than {MOST_FRAMES}")

    def _check_interpolation(self) -> None:
        if self.frames is not None:
            raise UserError("with --interpolate write --w-frames in place of --frames")
        if self.mesh:
            raise UserError("--mesh shows objects that stay as they are; leave out --interpolate")
        needed = self.tiles * self.keyframes
        if self.keyframes < 2 or needed != len(self.selection):
            raise UserError(
                f"--interpolate takes the same number of --seeds for each tile, two or more: "
                f"{self.tiles} tiles, {len(self.selection)} seeds"
                + (f", --num-keyframes {self.num_keyframes}" if self.num_keyframes else "")
            )

    @property
    def selection(self) -> Selection:
        """The objects that are shown, or gone through."""
        return Selection(self.seeds, self.trunc, self.trunc_cutoff, self.latent)

    @property
    def tiles(self) -> int:
        """Of a frame with --interpolate."""
        return self.grid[0] * self.grid[1] if self.grid else 1

    @property
    def keyframes(self) -> int:
        """Objects that a tile goes through."""
        return self.num_keyframes or len(self.selection) // self.tiles

    @property
    def frame_count(self) -> int:
        """Frames of each video."""
        if self.interpolate:
            return self.keyframes * (self.w_frames or FRAMES_BETWEEN)
        return self.frames or FRAMES

    @property
    def look(self) -> Look:
        """How objects are shown."""
        return Look(
            self.image_mode,
            self.fov_deg,
            self.render_size,
            self.enlarge,
            self.grid[0] if self.grid else None,
            self.mesh,
            self.shape_res,
        )

    @property
    def directions(self) -> Tensor:
        """(yaw, pitch) [frame_count, 2] in degrees: one round of the camera."""
        name = self.trajectory or ("turntable" if self.yaw == 180 else "swing")
        return videos.TRAJECTORIES[name](self.frame_count, self.yaw, self.pitch)


def write_videos(generator: Generator, options: VideoOptions) -> list[str]:
    """Write the videos that `options` ask for.

    Returns:
        What to tell the user about them, in lines.

    Raises:
        UserError: where frames would be too large, or files cannot be written.
    """
    if options.outdir is not None:
        _make(options.outdir)
    if options.interpolate:
        return [_write_interpolation(generator, options)]
    if options.dest is not None:
        return [_write_orbit(generator, options, options.dest, options.selection)]
    assert options.outdir is not None  # one of the two is given
    each = zip(options.selection.names(), options.selection.batches(1), strict=True)
    return [
        _write_orbit(generator, options, options.outdir / f"{name}.mp4", one) for name, one in each
    ]


def _make(outdir: Path) -> None:
    try:
        outdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make --outdir {outdir}: {error.strerror or error}") from error


def _write_orbit(
    generator: Generator, options: VideoOptions, dest: Path, selection: Selection
) -> str:
    videos.check_frames(generator, len(selection), options.look)
    objects = selection.objects(generator)
    frames = videos.orbit_frames(objects, options.directions, options.look)
    videos.save_video(dest, frames, options.frame_count, options.fps)
    return f"{dest}: {len(selection)} objects, {options.frame_count} frames"


def _write_interpolation(generator: Generator, options: VideoOptions) -> str:
    dest = options.dest
    if options.outdir is not None:
        dest = options.outdir / "interpolation.mp4"
    assert dest is not None  # one of the two is given
    videos.check_frames(generator, options.tiles, options.look)
    keyframes = videos.keyframe_ws(generator, options.selection, options.tiles)
    frames = videos.interpolation_frames(generator, keyframes, options.directions, options.look)
    videos.save_video(dest, frames, options.frame_count, options.fps)
    return f"{dest}: {options.tiles} x {options.keyframes} objects, {options.frame_count} frames"
