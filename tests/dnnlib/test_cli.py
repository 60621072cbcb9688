"""Mistakes of users are one line."""

import click
from click.testing import CliRunner

from dnnlib import Command, UserError


@click.command(cls=Command)
@click.option("--how", required=True)
def command(how: str) -> None:
    if how == "badly":
        raise UserError("this cannot be: do it well")
    if how == "wrongly":
        raise ValueError("a fault of the program")
    click.echo("done")


def test_user_errors_are_one_line():
    result = CliRunner().invoke(command, ["--how", "badly"])
    assert result.exit_code == 1
    assert result.output == "Error: this cannot be: do it well\n"


def test_other_errors_are_not_hidden():
    result = CliRunner().invoke(command, ["--how", "wrongly"])
    assert isinstance(result.exception, ValueError)


def test_success():
    result = CliRunner().invoke(command, ["--how", "well"])
    assert (result.exit_code, result.output) == (0, "done\n")
