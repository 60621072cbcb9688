"""How every command line of this project reports a mistake of its user."""

import click

from .errors import UserError


class Command(click.Command):
    """A click command that turns `UserError` into one line on stderr and exit status 1."""

    def invoke(self, ctx: click.Context):
        try:
            return super().invoke(ctx)
        except UserError as error:
            raise click.ClickException(str(error)) from error
