"""Where an episode starts, when ``reset(options=...)`` says so."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from textgym.batch import TextBatch
from textgym.errors import unknown_name
from textgym.prompts import Sample

if TYPE_CHECKING:
    from textgym.envs.parts import Parts

__all__ = ["OPTIONS", "Start", "begun_texts", "starts_from_options"]

OPTIONS = {
    "prompt": "a text",
    "prompt_ids": "a sequence of token ids",
    "index": "the index of a sample in the prompt source",
    "prefix": "a text: the beginning of the completion, counted against max_new_tokens",
    "prefix_ids": "the same as token ids",
}


@dataclass(frozen=True)
class Start:
    """A sample, its token ids, and the ids of a completion already begun."""

    sample: Sample
    prompt_ids: npt.NDArray[np.int64]
    """(P,) int64."""
    prefix_ids: npt.NDArray[np.int64] | None
    """(Q,) int64, or None."""


def starts_from_options(
    options: Mapping[str, Any], num: int, parts: "Parts", rngs: Sequence[np.random.Generator]
) -> list[Start]:
    """Read the reset options of ``num`` episodes.

    Each option (``OPTIONS`` lists them) is one value for all episodes, or a list of ``num`` values. At most one of
    ``prompt``, ``prompt_ids`` and ``index``, and at most one of ``prefix`` and ``prefix_ids``; without the former
    the prompt is drawn as always.

    Raises:
        ValueError: For an unknown or contradictory option, a list of the wrong length, or a text that leaves
            no room for a completion.
        TypeError: If an option is of another type, or ``index`` is given and the prompt source cannot be indexed.
    """
    for name in options:
        if name not in OPTIONS:
            raise unknown_name("reset option", name, OPTIONS)
    for rivals in ({"prompt", "prompt_ids", "index"}, {"prefix", "prefix_ids"}):
        if len(rivals & options.keys()) > 1:
            raise ValueError(f"give only one of the reset options {sorted(rivals & options.keys())}")
    columns = {name: _column(name, value, num) for name, value in options.items()}
    rows = [{name: column[i] for name, column in columns.items()} for i in range(num)]
    return [_start(row, parts, rng) for row, rng in zip(rows, rngs, strict=True)]


def begun_texts(starts: Sequence[Start], slots: npt.NDArray[np.int64], parts: "Parts") -> TextBatch:
    """Return the episodes that ``starts`` begin in ``slots``."""
    ids = np.full((len(starts), parts.window), parts.tokenizer.vocab_size, dtype=np.int64)
    prompt_lengths = np.array([start.prompt_ids.size for start in starts], dtype=np.int64)
    lengths = prompt_lengths.copy()
    for i, start in enumerate(starts):
        size = start.prompt_ids.size
        ids[i, :size] = start.prompt_ids
        if start.prefix_ids is not None:
            lengths[i] += start.prefix_ids.size
            ids[i, size : lengths[i]] = start.prefix_ids
    samples = [start.sample for start in starts]
    unfinished = np.zeros(len(starts), dtype=np.bool_)
    return TextBatch(parts.tokenizer, ids, lengths, prompt_lengths, samples, unfinished, slots)


def _column(name: str, value: Any, num: int) -> Sequence[Any]:
    """Return ``num`` values: a plain value is repeated, a list of values must have that many."""
    is_ids = name.endswith("_ids")
    kind: Any = int | np.integer if name == "index" else Sequence | np.ndarray if is_ids else str
    if isinstance(value, kind) and not (is_ids and len(value) > 0 and np.ndim(value[0]) > 0):
        values = [value] * num
    elif isinstance(value, Sequence | np.ndarray) and not isinstance(value, str):
        values = list(value)
    else:
        values = [value]
    for entry in values:
        if not isinstance(entry, kind) or (is_ids and isinstance(entry, str)):
            raise TypeError(f"reset option {name!r} is {OPTIONS[name]}, got {type(entry).__name__} {entry!r:.60}")
    if len(values) != num:
        raise ValueError(f"reset option {name!r} has {len(values)} values for {num} episodes")
    return values


def _start(row: Mapping[str, Any], parts: "Parts", rng: np.random.Generator) -> Start:
    encoder, tokenizer = parts.encoder, parts.tokenizer
    if "prompt_ids" in row:
        prompt_ids = encoder.encode_ids(row["prompt_ids"])
        sample = Sample(tokenizer.decode(prompt_ids.tolist()))
    else:
        if "prompt" in row:
            sample = Sample(row["prompt"])
        elif "index" in row:
            sample = _sample_at(row["index"], parts)
        else:
            sample = parts.prompts.draw(rng)
        prompt_ids = encoder(sample)
    prefix = row["prefix_ids"] if "prefix_ids" in row else tokenizer.encode(row.get("prefix", ""))
    return Start(sample, prompt_ids, _prefix_ids(prefix, parts))


def _prefix_ids(prefix: Any, parts: "Parts") -> npt.NDArray[np.int64]:
    ids = np.asarray(prefix)
    if ids.size and ids.dtype.kind not in "iu":
        raise TypeError(f"prefix_ids must be integers, got {ids.dtype}")
    if ids.size >= parts.max_new_tokens:
        raise ValueError(f"a prefix of {ids.size} tokens leaves no room in max_new_tokens={parts.max_new_tokens}")
    mask, eos = parts.tokenizer.token_mask, parts.tokenizer.eos_token_id
    for token_id in ids.tolist():
        if not (0 <= token_id < len(mask) and mask[token_id]):
            raise ValueError(f"prefix id {token_id} is not a token of the vocabulary of {len(mask)} ids")
        if token_id == eos:
            raise ValueError(f"prefix id {token_id} is EOS: a completion that has ended cannot be continued")
    return ids.astype(np.int64)


def _sample_at(index: int, parts: "Parts") -> Sample:
    prompts: Any = parts.prompts
    if not hasattr(prompts, "__getitem__") or not hasattr(prompts, "__len__"):
        raise TypeError(f"the reset option 'index' needs prompts that can be indexed, {type(prompts).__name__} cannot")
    if not 0 <= index < len(prompts):
        raise ValueError(f"prompt index {index} is outside 0 .. {len(prompts) - 1}")
    sample: Sample = prompts[int(index)]
    return sample
