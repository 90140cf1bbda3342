"""Repairs as options of another pretext: `chain.steps` applies all, `contrast.damage` and `distil.damage` one each."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from vision_mtl.core.errors import UserError, unknown
from vision_mtl.pretext.contract import PRETEXTS, Draw, Pretext, Shape


def build_repairs(
    option: str, given: Mapping[str, Any], defaults: Mapping[str, Mapping[str, Any]] | None = None
) -> dict[str, Pretext]:
    """Return the pretexts of `given`, a mapping from a name to its options, which go before those of `defaults`.

    Raises `UserError` that names `option` for a pretext that repairs no pixels, or for options that it cannot have.
    """
    built = {}
    for name, options in given.items():
        kind, own = PRETEXTS.get(name), own_options(option, name, options)
        known = [field.name for field in dataclasses.fields(kind) if field.init]
        for key in own:
            if key not in known:
                raise unknown(f"option of {option}.{name}", str(key), known)
        try:
            built[name] = kind(**{**(defaults or {}).get(name, {}), **own})
        except (TypeError, UserError) as error:
            raise UserError(_nested_text(option, name, error)) from error
        if not built[name].repairs:
            raise UserError(f"{option} must name pretexts that repair pixels; {name} repairs none.")
    return built


def own_options(option: str, name: str, given: Any) -> dict[str, Any]:
    """Return the options of one pretext in the mapping `option`; raise `UserError` for anything but a mapping."""
    if not isinstance(given, Mapping | None):
        raise UserError(f"{option}.{name} must be a mapping of options, as in {{weight: 1}}; found {given!r}.")
    return dict(given or {})


def check_nested(option: str, pretexts: Mapping[str, Pretext], shape: Shape) -> None:
    """Raise `UserError` that names `option` if images of `shape` cannot be used by one of the pretexts."""
    for name, pretext in pretexts.items():
        try:
            pretext.check(shape)
        except UserError as error:
            raise UserError(_nested_text(option, name, error)) from error


def _nested_text(option: str, name: str, error: Exception) -> str:
    """Return the error of a pretext, whose options have other names here."""
    text, own = str(error), f"pretexts.{name}."
    return f"{option}.{name}.{text.removeprefix(own)}" if text.startswith(own) else f"{option}.{name}: {text}"


def own_draw(draw: Draw, name: str) -> Draw:
    """Return the entries of a draw under `NAME.key`, by key; empty if there are none."""
    prefix = f"{name}."
    return {key.removeprefix(prefix): value for key, value in draw.items() if key.startswith(prefix)}
