"""Look at a trained network in the browser: objects, depth, meshes, photographs, a run."""

import importlib.util
from pathlib import Path

import click

from dnnlib import Command, UserError
from pof3d.commands import options

DEMO = "demo"
DEMO_NETWORK = Path(__file__).parents[2] / "models/heads.safetensors"


@click.command(
    cls=Command, memory_hint="a smaller network", context_settings={"show_default": True}
)
@click.option(
    "--network",
    metavar="FILE|RUN|demo",
    help="Network file, or a run folder, whose newest network is taken; demo: the shipped one.",
)
@click.option(
    "--run",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="Folder of a training run to follow: newest network, photographs, plot of poses.",
)
@click.option("--host", default="localhost", help="0.0.0.0 serves other machines as well.")
@click.option("--port", type=click.IntRange(1, 65535), default=8080, help="Of the page.")
@options.device
@options.precision
def main(
    network: str | None, run: Path | None, host: str, port: int, device: str, precision: str
) -> None:
    """Serve a page with a trained network until Ctrl-C."""
    if (network is None) == (run is None):
        raise UserError("name either --network (a file, a run folder, or demo) or --run")
    if importlib.util.find_spec("viser") is None:
        raise UserError("the viewer needs the package viser: pip install viser")

    from pof3d.viewer.server import serve
    from pof3d.viewer.source import NetworkSource
    from torch_utils.devices import select_device

    path = run or (_demo_network() if network == DEMO else Path(str(network)))
    source = NetworkSource(path, select_device(device), precision)
    serve(source, host, port, follow=run is not None)


def _demo_network() -> Path:
    if not DEMO_NETWORK.exists():
        raise UserError("the demo network comes with the source code alone: name a --network file")
    return DEMO_NETWORK
