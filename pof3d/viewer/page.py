"""The page that one browser sees: its widgets, its camera, its object.

Every browser has widgets and a renderer of its own; browsers share nothing but the network.
"""

import math
import threading
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
import viser
import viser.transforms
from torch import Tensor

from dnnlib import UserError, out_of_memory
from pof3d.viewer import scene
from pof3d.viewer.live import LiveRenderer, Wish
from pof3d.viewer.rendering import MODES, Frame, FreeCamera, own_window_fov
from pof3d.viewer.source import NetworkSource
from training.networks.generator import Generator
from training.outputs.meshes import find_surface
from training.outputs.objects import Objects

LARGEST_SEED_SHOWN = 999  # the end of the slider; the box takes what fits
MESH_COLOR = (170, 180, 200)
CAMERA_COLOR = (220, 60, 60)
# From where the training cameras are seen: yaw and pitch, radii of their sphere, degrees.
OVERVIEW_DEGREES, OVERVIEW_DISTANCE, OVERVIEW_FOV = (60.0, 25.0), 2.2, 50.0
MESSAGE_SECONDS = 8.0


class Page:
    """Build one for every browser that connects; `close` it when the browser has gone."""

    def __init__(self, client: viser.ClientHandle, source: NetworkSource):
        self._client, self._source = client, source
        self._lock, self._mesh_lock = threading.Lock(), threading.Lock()
        self._mesh_drawn: tuple[Generator, scene.Settings] | None = None
        self._settings = scene.Settings()
        self._mode = MODES[0]
        self._frame: Frame | None = None
        self._uploaded: scene.Photograph | None = None
        self._live = LiveRenderer(self._show, self._report)
        self._add_widgets()
        self._stand_at(scene.mix(source.network.generator, self._settings).pose)
        client.camera.on_update(lambda _: self._request())
        self._request()

    def close(self) -> None:
        """End this browser's renderer."""
        self._live.close()
        self._live.join()

    def network_changed(self) -> None:
        """Show what the source now holds."""
        self._title.content = self._title_text()
        self._show_run()
        self._change()

    # Rendering

    def _camera(self) -> FreeCamera:
        camera = self._client.camera
        cam2world = np.eye(4, dtype=np.float32)
        cam2world[:3, :3] = viser.transforms.SO3(camera.wxyz).as_matrix()
        cam2world[:3, 3] = camera.position
        generator = self._source.network.generator
        return FreeCamera(
            torch.from_numpy(cam2world).to(generator.intrinsics), camera.fov, camera.aspect
        )

    def _request(self) -> None:
        if self._client.camera.image_height > 0:  # the browser has told its size
            generator = self._source.network.generator
            self._live.request(Wish(generator, self._settings, self._camera(), self._mode))

    def _change(self, **settings: object) -> None:
        """Change settings, and whatever is drawn of them."""
        with self._lock:
            self._settings = replace(self._settings, **settings)  # type: ignore[arg-type]
        self._request()
        if self._mesh_shown.value:
            self._attempt("Mesh", self._draw_mesh)

    def _show(self, frame: Frame, sharpest: bool) -> None:
        self._frame = frame
        # A mesh lies in the very surface of the field, which would hide half of it.
        depth = None if self._mesh_shown.value else frame.depth
        self._client.scene.set_background_image(
            frame.picture, format="png" if sharpest else "jpeg", jpeg_quality=85, depth=depth
        )
        if sharpest:
            height, width = frame.picture.shape[:2]
            rate = f"{self._live.frame_rate:.0f} frames a second while moving"
            self._status.content = f"{width} x {height} pixels; {rate}"

    def _objects(self) -> Objects:
        return scene.mix(self._source.network.generator, self._settings)

    def _stand_at(self, pose: Tensor) -> None:
        """Move the browser's camera to a pose [1, 2]."""
        generator = self._source.network.generator
        self._move(generator.cam2world(pose)[0, :3, 3], own_window_fov(generator))

    def _stand_back(self) -> None:
        """Move the browser's camera to where it sees the training cameras, from behind them."""
        generator = self._source.network.generator
        pose = generator.pose_from_degrees(generator.intrinsics.new_tensor([OVERVIEW_DEGREES]))
        position = generator.cam2world(pose)[0, :3, 3] * OVERVIEW_DISTANCE
        self._move(position, math.radians(OVERVIEW_FOV))

    def _move(self, position: Tensor, fov: float) -> None:
        camera = self._client.camera
        with self._client.atomic():
            camera.up_direction = (0.0, 1.0, 0.0)
            camera.position = position.cpu().numpy().astype(np.float64)
            camera.look_at = np.array(self._source.network.config.camera.pivot)
            camera.fov = fov

    # Messages

    def _attempt(self, title: str, work: Callable[[], None]) -> None:
        """Do it while the page says so; faults become a message in the page."""
        notice = self._client.add_notification(title, "working", loading=True)
        try:
            work()
        except Exception as error:
            self._report(error, title)
        finally:
            notice.remove()

    def _report(self, error: Exception, title: str = "Rendering") -> None:
        known = error if isinstance(error, UserError) else out_of_memory(error)
        text = str(known or f"{type(error).__name__}: {error}")
        self._client.add_notification(
            f"{title} failed", text, color="red", auto_close_seconds=MESSAGE_SECONDS
        )

    # Widgets

    def _add_widgets(self) -> None:
        gui = self._client.gui
        self._title = gui.add_markdown(self._title_text())
        self._status = gui.add_markdown("")
        with gui.add_folder("Object"):
            self._add_object_widgets(gui)
        with gui.add_folder("View"):
            self._add_view_widgets(gui)
        with gui.add_folder("Photograph"):
            self._add_photograph_widgets(gui)
        with gui.add_folder("Download"):
            self._add_downloads(gui)
        self._run_folder = gui.add_folder("Run", expand_by_default=False, visible=False)
        self._run_pictures: dict[str, viser.GuiImageHandle] = {}
        self._show_run()

    def _title_text(self) -> str:
        return f"**{self._source.file.name}**"

    def _add_object_widgets(self, gui: viser.GuiApi) -> None:
        layers = self._source.network.generator.num_object_ws
        seed = gui.add_slider("Seed", 0, LARGEST_SEED_SHOWN, 1, self._settings.seed)
        seed.on_update(lambda _: self._change(seed=seed.value, photograph=None))
        truncation = gui.add_slider("Truncation", 0.0, 1.5, 0.05, self._settings.truncation)
        truncation.on_update(lambda _: self._change(truncation=truncation.value))
        other = gui.add_slider("Other seed", 0, LARGEST_SEED_SHOWN, 1, self._settings.other_seed)
        other.on_update(lambda _: self._change(other_seed=other.value))
        part = gui.add_slider(
            "Interpolation", 0.0, 1.0, 0.05, 0.0, hint="0: the object; 1: the other seed's"
        )
        part.on_update(lambda _: self._change(interpolation=part.value))
        styles = gui.add_slider(
            "Styles from", 0, layers, 1, layers, hint="Layers from here on are the other seed's"
        )
        styles.on_update(
            lambda _: self._change(styles_from=styles.value if styles.value < layers else None)
        )

    def _add_view_widgets(self, gui: viser.GuiApi) -> None:
        mode = gui.add_dropdown("Mode", MODES)
        mode.on_update(lambda _: self._set_mode(mode.value))
        self._mesh_shown = gui.add_checkbox("Mesh", False)
        self._mesh_shown.on_update(lambda _: self._attempt("Mesh", self._draw_mesh))
        cameras = gui.add_checkbox("Training cameras", False)
        cameras.on_update(lambda _: self._draw_cameras(cameras.value))
        own = gui.add_button("Own pose", hint="Where the generator puts this object's camera")
        own.on_click(lambda _: self._stand_at(self._objects().pose))

    def _add_photograph_widgets(self, gui: viser.GuiApi) -> None:
        upload = gui.add_upload_button("Upload a photograph", mime_type="image/*")
        upload.on_upload(lambda _: self._attempt("Photograph", lambda: self._upload(upload.value)))
        self._photograph = gui.add_image(np.full((1, 1, 3), 255, np.uint8), visible=False)
        self._photograph_text = gui.add_markdown("")
        project = gui.add_button("Project it", hint="Find the object and the pose that show it")
        project.on_click(lambda _: self._attempt("Projection", self._project))

    def _add_downloads(self, gui: viser.GuiApi) -> None:
        self._add_download(gui, "Picture", "view.png", self._picture)
        self._add_download(gui, "Mesh (GLB)", "object.glb", lambda: scene.mesh_glb(self._objects()))
        self._add_download(
            gui, "Turntable", "turntable.mp4", lambda: scene.turntable_mp4(self._objects())
        )

    def _add_download(
        self, gui: viser.GuiApi, label: str, name: str, make: Callable[[], bytes]
    ) -> None:
        def download() -> None:
            self._client.send_file_download(name, make(), save_immediately=True)

        gui.add_button(label).on_click(lambda _: self._attempt(label, download))

    # What widgets do

    def _show_run(self) -> None:
        """Put the run's newest pictures into the page."""
        for title, picture in self._source.pictures().items():
            self._run_folder.visible = True
            if title in self._run_pictures:
                self._run_pictures[title].image = np.asarray(picture)
            else:
                with self._run_folder:
                    image = self._client.gui.add_image(np.asarray(picture), label=title)
                self._run_pictures[title] = image

    def _set_mode(self, mode: str) -> None:
        self._mode = mode
        self._request()

    def _draw_mesh(self) -> None:
        """Bring the mesh up to date; of many calls in a row, the last ones find it so."""
        with self._mesh_lock:
            generator = self._source.network.generator
            wanted = (generator, self._settings) if self._mesh_shown.value else None
            if wanted == self._mesh_drawn:
                return
            if wanted is None:
                self._client.scene.remove_by_name("/mesh")
            else:
                planes = scene.mix(*wanted).planes
                mesh = find_surface(generator, planes, scene.MESH_RESOLUTION).mesh
                self._client.scene.add_mesh_simple(
                    "/mesh", mesh.vertices, mesh.faces, color=MESH_COLOR
                )
            self._mesh_drawn = wanted
        self._request()

    def _draw_cameras(self, shown: bool) -> None:
        if not shown:
            self._client.scene.remove_by_name("/cameras")
            self._stand_at(self._objects().pose)
            return
        lines = scene.frustum_lines(self._source.network.generator)
        self._client.scene.add_line_segments(
            "/cameras", lines, CAMERA_COLOR, thickness=1.5, thickness_units="screen"
        )
        self._stand_back()

    def _upload(self, file: viser.UploadedFile) -> None:
        network = self._source.network
        self._uploaded = scene.read_photograph(network, file.name, file.content)
        self._photograph.image = self._uploaded.picture
        self._photograph.visible = True
        yaw, pitch = network.generator.degrees_from_pose(self._uploaded.pose)[0].tolist()
        self._photograph_text.content = f"D's estimate: yaw {yaw:+.0f}°, pitch {pitch:+.0f}°"
        self._stand_at(self._uploaded.pose)

    def _project(self) -> None:
        if self._uploaded is None:
            raise UserError("there is no photograph yet: upload one")
        projected = scene.project_photograph(self._source.network, self._uploaded)
        self._change(photograph=projected)
        self._photograph_text.content = f"Projected: PSNR {projected.psnr:.1f} dB"
        self._stand_at(projected.pose)

    def _picture(self) -> bytes:
        if self._frame is None:
            raise UserError("there is no picture yet: wait for the first one")
        return scene.picture_png(self._frame)
