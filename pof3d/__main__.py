"""The command `pof3d`: one group over all command lines, each loaded when it is called."""

import importlib

import click

# By the name of the subcommand: module in pof3d.commands, and a line for `pof3d --help`.
COMMANDS = {
    "dataset": ("dataset_tool", "Make, check and convert data sets."),
    "train": ("train", "Train a generator on images with unknown camera poses."),
    "samples": ("gen_samples_pose", "Draw images, poses and shapes from a trained network."),
    "videos": ("gen_videos", "Turn the objects of a trained network before the camera."),
    "project": ("project", "Find the objects and poses that look like photographs."),
    "poses": ("estimate_poses", "Label photographs with estimated camera poses."),
    "shapes": ("estimate_shape", "Estimate depth, normals and meshes of photographs (GeoD)."),
    "metrics": ("calc_metrics", "Measure a trained network: quality, poses, geometry."),
    "view": ("view", "Look at a trained network in the browser, or follow a run."),
    "publish": ("publish", "Store a network in float16 with its provenance."),
    "convert": ("convert", "Convert a published checkpoint (.pkl) to .safetensors."),
}


class LazyGroup(click.Group):
    """A group that imports a command only to run it or to show its help."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of work."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """By its short name, or by that of the script at the top level."""
        module = COMMANDS[cmd_name][0] if cmd_name in COMMANDS else cmd_name
        if module not in {module for module, _ in COMMANDS.values()}:
            return None
        return importlib.import_module(f"pof3d.commands.{module}").main

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List all commands without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.command(cls=LazyGroup)
@click.version_option(package_name="pof3d")
def main() -> None:
    """PoF3D: 3D-aware image synthesis with unknown pose distribution."""


if __name__ == "__main__":
    main(prog_name="pof3d")
