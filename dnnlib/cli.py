"""What the command lines of this project share."""

import contextlib
import errno
import io
import math
import os
import signal
import sys
from typing import Any, NoReturn

import click

from .errors import UserError, out_of_memory
from .memory import keep_freed_memory
from .seeds import LARGEST_SEED, Seeds
from .signals import EXIT_STATUS_BASE, signals_unwind


class Command(click.Command):
    """A click command whose errors are one line on stderr.

    `UserError`, a lack of memory, a full disk and whatever else the system refuses exit with status
    1; Ctrl-C with 130; a closed pipe with 141 and no line. The signals with which systems and
    schedulers end a process unwind the stack first, so that temporary files go. Text that the
    terminal cannot encode is escaped. Freed memory stays in the process.

    Args:
        memory_hint: what makes this command need less memory, as "a smaller --batch".
    """

    def __init__(self, *args: Any, memory_hint: str = "", **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.memory_hint = memory_hint

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Parse the command line, as click does; mistakes in it can be printed."""
        escape_unencodable()
        return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. Raises click's exceptions in place of those in the class's list."""
        keep_freed_memory()
        try:
            with signals_unwind():
                result = super().invoke(ctx)
            sys.stdout.flush()  # here, where a full disk or a closed pipe can be told
            return result
        except KeyboardInterrupt as error:
            raise _Interrupted(str(error) or "interrupted") from error
        except (UserError, MemoryError, OSError, RuntimeError) as error:
            self._end(ctx, error)

    def _end(self, ctx: click.Context, error: Exception) -> NoReturn:
        if _is_broken_pipe(error):
            _abandon_stdout()
            ctx.exit(EXIT_STATUS_BASE + signal.SIGPIPE)
        if lack := out_of_memory(error):
            hint = f"; {self.memory_hint} needs less" if self.memory_hint else ""
            raise click.ClickException(f"{lack}{hint}") from error
        if isinstance(error, UserError):
            raise click.ClickException(str(error)) from error
        if isinstance(error, OSError) and error.errno is not None:
            raise click.ClickException(_without_number(error)) from error
        raise error


class _Interrupted(click.ClickException):
    exit_code = EXIT_STATUS_BASE + signal.SIGINT


class SeedList(click.ParamType):
    """'0-3,7' -> `Seeds` of 0, 1, 2, 3, 7."""

    name = "seeds"

    def convert(self, value: str | Seeds, param: Any, ctx: Any) -> Seeds:
        """Read a list of seeds and ranges; a mistake fails as click's own types do."""
        if isinstance(value, Seeds):
            return value
        return Seeds([self._range(part.strip(), param, ctx) for part in value.split(",")])

    def _range(self, part: str, param: Any, ctx: Any) -> range:
        first, dash, last = part.partition("-")
        ends = [first.strip(), last.strip() if dash else first.strip()]
        if not all(end.isdecimal() and len(end.lstrip("0")) <= 10 for end in ends):
            self.fail(f"'{part}' is neither a seed nor a range; write 0-3,7", param, ctx)
        start, stop = map(int, ends)
        if max(start, stop) > LARGEST_SEED:
            limit = f"seeds go up to {LARGEST_SEED}"
            self.fail(f"'{part}' is neither a seed nor a range; {limit}", param, ctx)
        if start > stop:
            self.fail(f"the range {part} runs backwards; write {stop}-{start}", param, ctx)
        return range(start, stop + 1)


def finite(ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
    """A callback for options of type float, which accept "nan" and "inf" themselves."""
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"{value} is not a finite number")
    return value


def escape_unencodable() -> None:
    """From now on, text that stdout and stderr cannot encode is written with escapes.

    Names of files may be any bytes, and a terminal may know nothing but ASCII.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _is_broken_pipe(error: BaseException | None) -> bool:
    """Also behind an error that was made of it."""
    while error is not None:
        if isinstance(error, BrokenPipeError):
            return True
        error = error.__cause__
    return False


def _abandon_stdout() -> None:
    """Let Python's last flush, of what can no longer be written, go nowhere."""
    with contextlib.suppress(OSError, io.UnsupportedOperation):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _without_number(error: OSError) -> str:
    name = "" if error.filename is None else f": {os.fsdecode(error.filename)}"
    reason = error.strerror or os.strerror(error.errno or errno.EIO)
    hint = "; make room there" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
    return f"{reason}{name}{hint}"
