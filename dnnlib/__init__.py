"""Small general helpers that know nothing of networks: errors, files, the cache folder."""

from .cli import Command, SeedList, escape_unencodable, finite
from .destinations import check_destination, write_destination
from .errors import OutOfMemory, UserError, first_line, out_of_memory
from .files import append_line, atomic_write, cache_dir, remove_leftovers
from .memory import keep_freed_memory
from .seeds import LARGEST_SEED, Seeds
from .signals import EXIT_STATUS_BASE, StopSignals, say_now, signals_unwind
from .version import code_version

__all__ = [
    "EXIT_STATUS_BASE",
    "LARGEST_SEED",
    "Command",
    "OutOfMemory",
    "SeedList",
    "Seeds",
    "StopSignals",
    "UserError",
    "append_line",
    "atomic_write",
    "cache_dir",
    "check_destination",
    "code_version",
    "escape_unencodable",
    "finite",
    "first_line",
    "keep_freed_memory",
    "out_of_memory",
    "remove_leftovers",
    "say_now",
    "signals_unwind",
    "write_destination",
]
