"""The one error that means "the user can mend this"."""


class UserError(Exception):
    """Bad input. The message is one line that says what is wrong and how to mend it.

    Command lines print it and exit with status 1 (see `dnnlib.cli`); library users catch it.
    """
