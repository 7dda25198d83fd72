"""What can go wrong, in one place: the exceptions a caller may want to catch, and the wording of look-up errors."""

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
    """Base of the exceptions that are textgym's own."""


class ScorerError(TextGymError):
    """A scorer raised, or returned something that is not one finite score per episode.

    Args:
        message: What went wrong.
        completions: The texts that have no score, where they are known.
    """

    def __init__(self, message: str = "", completions: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.completions = tuple(completions)


class InvalidActionError(TextGymError):
    """An action inside the action space that the constraints forbid in this state."""


class PromptsExhaustedError(TextGymError):
    """A finite stream of prompts has no further prompt for a new episode."""


def foreign_code(error: Exception, name: object) -> Exception:
    """Return the error for a model or tokenizer that comes with Python code of its own, which transformers refused.

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
    """Return whether a name is so near a known one that asking a hub for it would only waste time.

    >>> is_misspelt("chars", ["char", "byte"]), is_misspelt("gpt2", ["char", "byte"])
    (True, False)
    """
    return bool(difflib.get_close_matches(name, list(known), n=1, cutoff=0.75))


def unknown_name(kind: str, name: object, known: Iterable[str], *, also: str = "") -> ValueError:
    """Build the error for a name that is not registered.

    Args:
        kind: What was looked up, in the singular (``"scorer"``).
        name: What the caller wrote.
        known: The names that exist.
        also: What else the argument accepts, as the end of a sentence.

    Returns:
        A ``ValueError`` that lists the known names and suggests the nearest one.

    >>> print(unknown_name("scorer", "sentimant", ["repetition", "sentiment"]))
    unknown scorer 'sentimant'; did you mean 'sentiment'? Known: repetition, sentiment.
    """
    return ValueError(f"unknown {kind} {name!r}{_suggestion(name, known)}{' ' + also if also else ''}")


def unknown_keyword(name: str, known: Iterable[str], *, also: str = "") -> TypeError:
    """Build the error for a keyword argument that does not exist, in Python's own words.

    Other libraries look for these words: TorchRL tries whether an environment takes ``frameskip``.

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
