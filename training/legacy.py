"""Convert a published checkpoint: python -m training.legacy OLD.pkl NEW.safetensors."""

from pathlib import Path

import click

from dnnlib import Command, UserError
from training.files.legacy import load_legacy
from training.files.network_file import save_network


@click.command(cls=Command)
@click.argument("old", type=click.Path(path_type=Path))
@click.argument("new", type=click.Path(path_type=Path))
def main(old: Path, new: Path) -> None:
    """Convert the checkpoint OLD, a pickle, into the network file NEW (.safetensors)."""
    if new.suffix != ".safetensors":
        raise UserError(f"{new}: name the new file *.safetensors")
    if not new.parent.is_dir():
        raise UserError(f"the folder {new.parent} does not exist")
    network = load_legacy(old)
    save_network(new, network.generator, network.discriminator, network.provenance)
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


if __name__ == "__main__":
    main()
