"""Config files in YAML, read as mappings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from vision_mtl.core.errors import UserError


def read_config(path: Path) -> dict[str, Any]:
    """Return the content of a YAML config file; raises `UserError` naming file and line."""
    try:
        content = yaml.safe_load(path.expanduser().read_text("utf-8"))
    except OSError as error:
        raise UserError(f"cannot read the config file {str(path)!r}: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if content is not None and not isinstance(content, dict):
        raise UserError(f"{path} must hold a mapping of options; found {type(content).__name__}.")
    return content or {}
