"""Errors that a user can act on. The command line prints their text and nothing else; anything else is our bug."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad input. The text names the thing, the rule and the value found, and ends with what to do."""


def nearest(name: str, valid: Iterable[str]) -> str | None:
    """The entry of `valid` that is most like `name`, or None if none is at all like it.

    >>> nearest("pretrian", ["pretrain", "probe"])
    'pretrain'
    """
    found = difflib.get_close_matches(name, list(valid), n=1, cutoff=0.5)
    return found[0] if found else None


def unknown(kind: str, name: str, valid: Iterable[str]) -> UserError:
    """The error for a name that is not among `valid`: names the nearest, then lists them (12 at most)."""
    names = sorted(valid)
    guess = nearest(name, names)
    hint = f" Did you mean {guess!r}?" if guess else ""
    listed = ", ".join(names[:12]) + (f", ... ({len(names)} in all)" if len(names) > 12 else "")
    return UserError(f"unknown {kind} {name!r}.{hint} Known: {listed or 'none'}.")
