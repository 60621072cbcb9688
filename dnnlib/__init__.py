"""Small general helpers that know nothing of networks: errors, files, the cache folder."""

from .cli import Command, SeedList, finite
from .errors import UserError
from .files import append_bytes, append_line, atomic_write, cache_dir, remove_leftovers
from .signals import EXIT_STATUS_BASE, StopSignals
from .version import code_version

__all__ = [
    "EXIT_STATUS_BASE",
    "Command",
    "SeedList",
    "StopSignals",
    "UserError",
    "append_bytes",
    "append_line",
    "atomic_write",
    "cache_dir",
    "code_version",
    "finite",
    "remove_leftovers",
]
