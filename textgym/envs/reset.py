"""Reset requests, reset options, and the assignment of prompts to new episodes."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from textgym.batch import TextBatch
from textgym.envs.components import EnvComponents
from textgym.errors import unknown_name
from textgym.prompts import Sample

__all__ = [
    "PromptAssignment",
    "ResetRequest",
    "num_episodes_of",
    "option_rows",
]

OPTIONS = {
    "prompt": "a text",
    "prompt_ids": "a sequence of token ids",
    "index": "the index of a sample in the prompt source",
    "prefix": "a text, the start of the completion, counted against max_new_tokens",
    "prefix_ids": "a sequence of token ids, the start of the completion",
}

PROMPT_OPTIONS = ("prompt", "prompt_ids", "index")

OptionRow = Mapping[str, Any]
"""Reset options of one episode; without a prompt among them, one is drawn."""


class ResetRequest(NamedTuple):
    """Request to start new episodes."""

    slots: npt.NDArray[np.int64]
    """(n,) int64, the slots in which they start."""
    rows: Sequence[OptionRow] | None = None
    """n rows of options, from ``option_rows``; None draws every prompt."""
    rngs: Sequence[np.random.Generator | None] | None = None
    """N generators that replace those of the slots, None where they do not; replacing all restarts group numbers."""
    is_full: bool = False
    """Whether all of a vector interface is reset: a group begins, and ``num_episodes`` replaces the last limit."""
    num_episodes: int | None = None
    """Number of episodes from here on, including this request's, before slots are parked; None for no limit."""


class InitialText(NamedTuple):
    """Text with which an episode starts."""

    sample: Sample
    prompt_ids: npt.NDArray[np.int64]
    """(P,) int64."""
    prefix_ids: npt.NDArray[np.int64] | None = None
    """(Q,) int64, the start of the completion, or None."""


class AssignmentState(NamedTuple):
    """Current group of episodes, which share a prompt, and the number of episodes left."""

    num_groups: int = 0
    """Number of groups so far, of drawn and of given prompts."""
    group: int = 0
    """Number of the current group, counted from 1; 0 before the first."""
    group_left: int = 0
    """Episodes of the group that have not started."""
    initial: InitialText | None = None
    """Text with which these start."""
    episodes_left: int | None = None
    """Episodes that may start before slots are parked; None for no limit."""


class PromptAssignment:
    """Assigns a prompt to each new episode.

    Prompts are drawn by the generator of the slot; with ``group_size`` G, the next G episodes share each drawn prompt,
    whichever slots they start in.
    """

    def __init__(self, components: EnvComponents, num_envs: int) -> None:
        self.components = components
        self.rngs: list[np.random.Generator] = [np.random.default_rng() for _ in range(num_envs)]
        self.state = AssignmentState()

    def assign(self, request: ResetRequest) -> tuple[TextBatch, list[int]]:
        """Return the initial texts of the episodes that start, and their groups.

        Episodes to which one reset gives the same prompt are a group of their own.
        """
        if request.rngs is not None:
            self.rngs = [old if new is None else new for old, new in zip(self.rngs, request.rngs, strict=True)]
            if all(rng is not None for rng in request.rngs):
                self.state = self.state._replace(num_groups=0, group=0, group_left=0, initial=None)
        if request.is_full:
            self.state = self.state._replace(group_left=0, initial=None, episodes_left=request.num_episodes)
        slots = request.slots[: self.state.episodes_left]
        if self.state.episodes_left is not None:
            self.state = self.state._replace(episodes_left=self.state.episodes_left - slots.size)
        initial_texts, groups = [], []
        if request.rows is None:
            for slot in slots.tolist():
                initial_texts.append(self._next_of_group(self.rngs[slot]))
                groups.append(self.state.group)
            return _initial_batch(initial_texts, slots, self.components), groups
        given: dict[tuple[str, str], int] = {}
        for slot, row in zip(slots.tolist(), request.rows, strict=False):
            name = next((name for name in PROMPT_OPTIONS if name in row), None)
            if name is None:
                initial, group = self._next_of_group(self.rngs[slot]), self.state.group
            else:
                initial = _given(row, self.components)
                group = given.setdefault((name, str(row[name])), self.state.num_groups + 1)
                self.state = self.state._replace(num_groups=max(group, self.state.num_groups))
            initial_texts.append(initial._replace(prefix_ids=_prefix_ids(row, self.components)))
            groups.append(group)
        return _initial_batch(initial_texts, slots, self.components), groups

    def _next_of_group(self, rng: np.random.Generator) -> InitialText:
        num_groups, group, left, initial, episodes_left = self.state
        if left == 0 or initial is None:
            sample = self.components.prompts.draw(rng)
            left, initial = self.components.group_size, InitialText(sample, self.components.encoder(sample))
            num_groups = group = num_groups + 1
        self.state = AssignmentState(num_groups, group, left - 1, initial, episodes_left)
        return initial

    def get_rng_states(self) -> list[dict[str, Any]]:
        """Return the states of the N generators, made of strings and integers, as JSON can hold them."""
        return [dict(rng.bit_generator.state) for rng in self.rngs]

    def set_rng_states(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Set the states of the N generators."""
        if len(states) != len(self.rngs):
            raise ValueError(
                f"got {len(states)} generator states for num_envs={len(self.rngs)}; make the environment with "
                f"num_envs={len(states)} to continue with them"
            )
        for rng, state in zip(self.rngs, states, strict=True):
            rng.bit_generator.state = state


def option_rows(options: Mapping[str, Any] | None, num: int) -> list[OptionRow] | None:
    """Return the reset options of each of ``num`` episodes, None where there are none at all.

    Each option (see ``OPTIONS``) is one value for all episodes, or a list of ``num`` values. At most one of ``prompt``,
    ``prompt_ids`` and ``index`` may be given, and at most one of ``prefix`` and ``prefix_ids``.

    Raises:
        ValueError: For an unknown or contradictory option, or a list of the wrong length.
        TypeError: If an option is of another type.
    """
    if not options:
        return None
    for name in options:
        if name not in OPTIONS:
            raise unknown_name("reset option", name, OPTIONS)
    for exclusive in (set(PROMPT_OPTIONS), {"prefix", "prefix_ids"}):
        if len(exclusive & options.keys()) > 1:
            raise ValueError(f"give only one of the reset options {sorted(exclusive & options.keys())}")
    columns = {name: _column(name, value, num) for name, value in options.items()}
    return [{name: column[i] for name, column in columns.items()} for i in range(num)]


def num_episodes_of(options: dict[str, Any]) -> int | None:
    """Remove ``num_episodes`` from reset options and return it; None where it is not given."""
    num_episodes = options.pop("num_episodes", None)
    if num_episodes is None:
        return None
    if isinstance(num_episodes, bool) or not isinstance(num_episodes, int | np.integer) or num_episodes < 1:
        raise ValueError(f"num_episodes must be an integer of at least 1, got {num_episodes!r}")
    return int(num_episodes)


def _column(name: str, value: Any, num: int) -> Sequence[Any]:
    """Return ``num`` values: a single value is repeated, a list must have that many."""
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
            raise TypeError(f"reset option {name!r} must be {OPTIONS[name]}, got {type(entry).__name__} {entry!r:.60}")
    if len(values) != num:
        raise ValueError(f"reset option {name!r} has {len(values)} values for {num} episodes")
    return values


def _given(row: OptionRow, components: EnvComponents) -> InitialText:
    """Return the initial text of an episode whose prompt the options give."""
    if "prompt_ids" in row:
        prompt_ids = components.encoder.encode_ids(row["prompt_ids"])
        return InitialText(Sample(components.tokenizer.decode(prompt_ids.tolist())), prompt_ids)
    sample = Sample(row["prompt"]) if "prompt" in row else _sample_at(row["index"], components)
    return InitialText(sample, components.encoder(sample))


def _prefix_ids(row: OptionRow, components: EnvComponents) -> npt.NDArray[np.int64] | None:
    """Return the (Q,) ids of the prefix, None where the options give none."""
    if "prefix" not in row and "prefix_ids" not in row:
        return None
    ids = np.asarray(row["prefix_ids"] if "prefix_ids" in row else components.tokenizer.encode(row["prefix"]))
    if ids.size and ids.dtype.kind not in "iu":
        raise TypeError(f"prefix_ids must be integers, got {ids.dtype}")
    if ids.size >= components.max_new_tokens:
        raise ValueError(f"a prefix of {ids.size} tokens leaves no room in max_new_tokens={components.max_new_tokens}")
    mask, eos = components.tokenizer.token_mask, components.tokenizer.eos_token_id
    for token_id in ids.tolist():
        if not (0 <= token_id < len(mask) and mask[token_id]):
            raise ValueError(f"prefix id {token_id} is not a token of the vocabulary of {len(mask)} ids")
        if token_id == eos:
            raise ValueError(f"prefix id {token_id} is EOS: a completion that has ended cannot be continued")
    return ids.astype(np.int64)


def _sample_at(index: int, components: EnvComponents) -> Sample:
    prompts: Any = components.prompts
    if not hasattr(prompts, "__getitem__") or not hasattr(prompts, "__len__"):
        raise TypeError(f"the reset option 'index' needs prompts that can be indexed, {type(prompts).__name__} cannot")
    if not 0 <= index < len(prompts):
        raise ValueError(f"prompt index {index} is outside 0 .. {len(prompts) - 1}")
    sample: Sample = prompts[int(index)]
    return sample


def _initial_batch(
    initial_texts: Sequence[InitialText], slots: npt.NDArray[np.int64], components: EnvComponents
) -> TextBatch:
    """Return the batch of new episodes in ``slots``."""
    ids = np.full((len(initial_texts), components.window), components.tokenizer.vocab_size, dtype=np.int64)
    prompt_lengths = np.array([initial.prompt_ids.size for initial in initial_texts], dtype=np.int64)
    lengths = prompt_lengths.copy()
    for i, initial in enumerate(initial_texts):
        size = initial.prompt_ids.size
        ids[i, :size] = initial.prompt_ids
        if initial.prefix_ids is not None:
            lengths[i] += initial.prefix_ids.size
            ids[i, size : lengths[i]] = initial.prefix_ids
    samples = [initial.sample for initial in initial_texts]
    unfinished = np.zeros(len(initial_texts), dtype=np.bool_)
    return TextBatch(components.tokenizer, ids, lengths, prompt_lengths, samples, unfinished, slots)
