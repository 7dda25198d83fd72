"""What an action means: the full vocabulary, or a subset of it."""

from textgym.actions.base import Actions
from textgym.actions.subset import Subset
from textgym.actions.vocabulary import Vocabulary
from textgym.errors import unknown_name

__all__ = ["Actions", "Subset", "Vocabulary", "as_actions"]


def as_actions(spec: "str | Actions") -> Actions:
    """Turn the ``actions`` keyword into an object: ``"vocabulary"`` by name, anything else as it is.

    Raises:
        ValueError: If the name is unknown.
        TypeError: If it is no ``Actions`` object.
    """
    if isinstance(spec, str):
        if spec != "vocabulary":
            raise unknown_name(
                "action space", spec, ["vocabulary"], also="Objects such as Subset([...]) are accepted too."
            )
        return Vocabulary()
    if not isinstance(spec, Actions):
        raise TypeError(f"actions must be a name or a textgym.actions.Actions object, got {spec!r}")
    return spec
