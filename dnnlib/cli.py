"""What the command lines of this project share."""

import math
from typing import Any

import click

from .errors import UserError

LARGEST_SEED = 2**32 - 1  # of numpy's RandomState


class Command(click.Command):
    """A click command that turns `UserError` into one line on stderr and exit status 1."""

    def invoke(self, ctx: click.Context):
        try:
            return super().invoke(ctx)
        except UserError as error:
            raise click.ClickException(str(error)) from error


class SeedList(click.ParamType):
    """'0-3,7' -> [0, 1, 2, 3, 7]."""

    name = "seeds"

    def convert(self, value: str, param: Any, ctx: Any) -> list[int]:
        seeds: list[int] = []
        for part in value.split(","):
            first, dash, last = part.strip().partition("-")
            ends = [first, last if dash else first]
            if not all(end.isdecimal() and int(end) <= LARGEST_SEED for end in ends):
                self.fail(f"'{part}' is neither a seed nor a range; write 0-3,7", param, ctx)
            start, stop = map(int, ends)
            if start > stop:
                self.fail(f"the range {part} runs backwards; write {stop}-{start}", param, ctx)
            seeds.extend(range(start, stop + 1))
        return list(dict.fromkeys(seeds))


def finite(ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
    """A callback for options of type float, which accept "nan" and "inf" themselves."""
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"{value} is not a finite number")
    return value
