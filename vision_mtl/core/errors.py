"""Errors that a user can act on. The command line prints their text without a traceback; any other error is a bug."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad input. The text names the option or file, the rule and the value found, and ends with what to do."""


def nearest(name: str, valid: Iterable[str]) -> str | None:
    """Return the entry of `valid` that is most similar to `name` in any case of letters, or None if none is similar.

    >>> nearest("pretrian", ["pretrain", "probe"])
    'pretrain'
    """
    entries = list(valid)
    folded = {entry.casefold(): entry for entry in reversed(entries)}  # of equal ones the first
    found = difflib.get_close_matches(name.casefold(), [entry.casefold() for entry in entries], n=1, cutoff=0.5)
    return folded[found[0]] if found else None


def unknown(kind: str, name: str, valid: Iterable[str]) -> UserError:
    """Return the error for a name that is not in `valid`: it suggests the nearest and lists up to 12 valid names."""
    names = sorted(valid)
    guess = nearest(name, names)
    hint = f" Did you mean {guess!r}?" if guess else ""
    listed = ", ".join(names[:12]) + (f", ... ({len(names)} in all)" if len(names) > 12 else "")
    return UserError(f"unknown {kind} {name!r}.{hint} Known: {listed or 'none'}.")
