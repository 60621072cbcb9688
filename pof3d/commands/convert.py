"""Convert a published checkpoint: pof3d convert OLD.pkl NEW.safetensors."""

from pathlib import Path

import click

from dnnlib import Command, UserError, check_destination, write_destination


@click.command(cls=Command)
@click.argument("old", type=click.Path(path_type=Path))
@click.argument("new", type=click.Path(path_type=Path))
def main(old: Path, new: Path) -> None:
    """Convert the checkpoint OLD, a pickle, into the network file NEW (.safetensors)."""
    from training.files.network_file import load_network, save_network

    if new.suffix != ".safetensors":
        raise UserError(f"{new}: name the new file *.safetensors")
    check_destination(new, "NEW")
    network = load_network(old)
    with write_destination(new, "NEW") as temporary:
        save_network(temporary, network.generator, network.discriminator, network.provenance)
    sizes = {
        type(part).__name__.lower(): sum(p.numel() for p in part.parameters())
        for part in (network.generator, network.discriminator)
        if part is not None
    }
    parameters = ", ".join(f"{name} of {count / 1e6:.2f} M" for name, count in sizes.items())
    poses = network.config.camera.poses
    click.echo(
        f"{new}: {parameters} parameters, {network.config.data.resolution} px images, poses {poses}"
    )
