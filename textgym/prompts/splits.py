"""Which prompts are for training and which for evaluation."""

import hashlib

from textgym.prompts.lists import IndexedPrompts, SubsetPrompts

__all__ = ["train_eval_split"]


def train_eval_split(
    source: IndexedPrompts, eval_share: float = 0.1, seed: int = 0
) -> tuple[SubsetPrompts, SubsetPrompts]:
    """Divide a source into training and evaluation prompts.

    The prompts are ordered by a hash of seed and text, and the first of them are for evaluation. So equal prompts
    land on the same side, the order of the source does not matter, and a prompt added later moves few others.

    Args:
        source: An indexed source. Every prompt is read.
        eval_share: Share of the different prompts that are for evaluation, more than 0 and less than 1. Each side
            gets at least one.
        seed: Decides the division.

    Returns:
        The training and the evaluation prompts, disjoint and together the source.

    Raises:
        ValueError: If the share is outside (0, 1) or there are fewer than two different prompts.
        TypeError: If the source has no numbers for its samples.

    >>> from textgym.prompts import ListPrompts
    >>> train, held_out = train_eval_split(ListPrompts(["a", "b", "c", "d"]), eval_share=0.25)
    >>> len(train), len(held_out)
    (3, 1)
    """
    if not isinstance(source, IndexedPrompts):
        raise TypeError(f"only a source with numbered samples can be divided, not {type(source).__name__}")
    if not 0.0 < eval_share < 1.0:
        raise ValueError(f"eval_share must lie between 0 and 1, got {eval_share}")
    prompts = [source[i].prompt for i in range(len(source))]
    ordered = sorted(set(prompts), key=lambda prompt: (prompt_hash(prompt, seed), prompt))
    if len(ordered) < 2:
        raise ValueError("a source of one prompt cannot be divided into training and evaluation")
    num_eval = min(max(round(eval_share * len(ordered)), 1), len(ordered) - 1)
    held_out = set(ordered[:num_eval])
    train_indices = [i for i, prompt in enumerate(prompts) if prompt not in held_out]
    eval_indices = [i for i, prompt in enumerate(prompts) if prompt in held_out]
    return SubsetPrompts(source, train_indices), SubsetPrompts(source, eval_indices)


def prompt_hash(prompt: str, seed: int) -> bytes:
    """Return a hash that is the same on every machine."""
    return hashlib.sha256(f"{seed}:{prompt}".encode("utf-8", "surrogatepass")).digest()
