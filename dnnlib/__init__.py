"""Small general helpers that know nothing of networks: errors, files, the cache folder."""

from .cli import Command
from .errors import UserError
from .files import atomic_write, cache_dir

__all__ = ["Command", "UserError", "atomic_write", "cache_dir"]
