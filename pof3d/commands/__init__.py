"""The command lines: options in, one call out.

The scripts at the top level and the subcommands of `pof3d` are these same click commands. Heavy
imports stand inside the functions, so that `--help` answers at once.
"""
