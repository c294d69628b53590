"""The one error of this package: input that nobody can work with until a person mends it."""

from __future__ import annotations


class InputError(ValueError):
    """A source as a whole cannot be used. The message names the file or column, what is wrong, and the mend.

    A single bad row is never an InputError: it becomes a rejected row, and the good rows go on.
    """
