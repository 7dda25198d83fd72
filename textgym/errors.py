"""Exceptions of textgym, and constructors of common errors."""

import difflib
from collections.abc import Iterable

__all__ = [
    "InvalidActionError",
    "PromptsExhaustedError",
    "ScorerError",
    "TextGymError",
    "foreign_code",
    "install_hint",
    "is_misspelt",
    "unknown_keyword",
    "unknown_name",
]


class TextGymError(Exception):
    """Base class of textgym's own exceptions."""


class ScorerError(TextGymError):
    """A scorer raised, or returned something that is not one finite score per episode.

    Args:
        message: The error message.
        completions: The texts without a score, where they are known.
    """

    def __init__(self, message: str = "", completions: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.completions = tuple(completions)


class InvalidActionError(TextGymError):
    """An action of the action space that is masked in this state, or no action is valid."""


class PromptsExhaustedError(TextGymError):
    """A finite stream of prompts has no further prompt for a new episode."""


def foreign_code(error: Exception, name: object) -> Exception:
    """Return the error for a model or tokenizer with Python code of its own, which transformers refused to run.

    Args:
        error: What transformers raised with ``trust_remote_code=False``; any other error is returned as it is.
        name: The folder or name that was loaded.
    """
    if "trust_remote_code" not in str(error):
        return error
    return ValueError(
        f"{str(name)!r} holds Python code of its own, which is never run; if you trust it, load it with transformers "
        "(trust_remote_code=True) and pass the loaded object"
    )


def install_hint(extra: str) -> str:
    """Return the commands that install an optional dependency group, for the message of an ``ImportError``.

    >>> print(install_hint("sb3"))
    pip install 'textgym[sb3]', or from a checkout: pip install -e '.[sb3]'
    """
    return f"pip install 'textgym[{extra}]', or from a checkout: pip install -e '.[{extra}]'"


def is_misspelt(name: str, known: Iterable[str]) -> bool:
    """Return whether a name is probably a typo of a known one, so that a hub need not be asked for it.

    >>> is_misspelt("chars", ["char", "byte"]), is_misspelt("gpt2", ["char", "byte"])
    (True, False)
    """
    return bool(difflib.get_close_matches(name, list(known), n=1, cutoff=0.75))


def unknown_name(kind: str, name: object, known: Iterable[str], *, also: str = "") -> ValueError:
    """Build the error for a name that is not registered.

    Args:
        kind: The kind of the name, in the singular (``"scorer"``).
        name: The unknown name.
        known: The known names.
        also: A further sentence, such as what else the argument accepts.

    Returns:
        A ``ValueError`` that lists the known names and suggests the nearest one.

    >>> print(unknown_name("scorer", "sentimant", ["repetition", "sentiment"]))
    unknown scorer 'sentimant'; did you mean 'sentiment'? Known: repetition, sentiment.
    """
    return ValueError(f"unknown {kind} {name!r}{_suggestion(name, known)}{' ' + also if also else ''}")


def unknown_keyword(name: str, known: Iterable[str], *, also: str = "") -> TypeError:
    """Return the error for an unknown keyword argument, in Python's own words.

    Other libraries match these words: TorchRL tests whether an environment takes ``frameskip``.

    >>> print(unknown_keyword("scorrer", ["scorer", "reward"]))
    got an unexpected keyword argument 'scorrer'; did you mean 'scorer'? Known: reward, scorer.
    """
    return TypeError(
        f"got an unexpected keyword argument {name!r}{_suggestion(name, known)}{' ' + also if also else ''}"
    )


def _suggestion(name: object, known: Iterable[str]) -> str:
    names = sorted(known)
    nearest = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    return f"{f'; did you mean {nearest[0]!r}?' if nearest else '.'} Known: {', '.join(names)}."
