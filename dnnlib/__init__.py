"""Small general helpers that know nothing of networks: errors, files, the cache folder."""

from .cli import Command
from .errors import UserError
from .files import atomic_write, cache_dir
from .signals import EXIT_STATUS_BASE, StopSignals

__all__ = ["EXIT_STATUS_BASE", "Command", "StopSignals", "UserError", "atomic_write", "cache_dir"]
