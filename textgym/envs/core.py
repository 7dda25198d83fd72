"""The Markov decision process: N episodes as arrays of token ids, reset and stepped together.

The three interfaces translate between ``Core`` and their frameworks; nothing here depends on any of them.
"""

import math
import threading
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode

from textgym.batch import TextBatch
from textgym.envs.action_masking import ActionMasking
from textgym.envs.components import EnvComponents
from textgym.envs.reset import PromptAssignment, ResetRequest
from textgym.envs.step_result import EpisodeEnd, FinalState, State, Step
from textgym.envs.user_turns import UserTurns
from textgym.errors import ScorerError
from textgym.prompts import Sample
from textgym.rewards import checked_rewards, checked_token_rewards
from textgym.scorers import Scorer, component_names, evaluate

__all__ = ["Core"]

_Result = TypeVar("_Result")
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Slots = slice | Integers
Reason = tuple[str, Bools]
"""End reason, and (n,) mask of the episodes it ended."""
ALL = slice(None)

# The (N,) arrays of an episode's state, besides ids.
COLUMNS = ("lengths", "prompt_lengths", "steps", "running", "reward_state", "kl", "groups")


class Core:
    """N episodes of text generation, one per slot.

    With ``group_size`` 1, slot i seeded with s runs the same episodes as a single environment seeded with s.

    ``reset`` and ``step`` are atomic: after an exception every episode and generator is as it was, and the call can be
    repeated; only prompts taken from an iterator are lost. Scorers and prompt sources observe ended episodes last, when
    nothing else can fail; an exception in their ``observe`` leaves the step taken. To make undoing cheap, (N,) arrays
    are replaced before they change; ``ids`` is written in place, and ``user_turns`` is copied before each call.

    Attributes:
        ids: (N, L) int64, prompt and completion, right-padded with ``pad_token_id`` = V.
        lengths: (N,) int64, tokens of prompt and completion.
        prompt_lengths: (N,) int64.
        steps: (N,) int64, the used part of ``max_new_tokens``: tokens of the prefix that the episode started with, and
            one for each action since, ignored invalid actions included.
        running: (N,) bool, False before the first reset, after an episode's end, and where a slot is parked.
    """

    def __init__(self, components: EnvComponents, num_envs: int, *, max_reward: float = math.inf) -> None:
        if num_envs < 1:
            raise ValueError(f"num_envs must be at least 1, got {num_envs}")
        tokenizer = components.tokenizer
        self.components = components
        self.num_envs = num_envs
        self.max_reward = max_reward
        self.pad_token_id = tokenizer.vocab_size
        self.num_actions = components.actions.size(tokenizer)
        self.reward_names = component_names(components.scorer)
        self.masking = ActionMasking(components)
        self._learns = components.learns
        # -1 equals no token: a tokenizer without EOS never ends an episode by it.
        self._eos = -1 if tokenizer.eos_token_id is None else tokenizer.eos_token_id
        self._rows = np.arange(num_envs)

        self.ids = np.full((num_envs, components.window), self.pad_token_id, dtype=np.int64)
        self.lengths = np.zeros(num_envs, dtype=np.int64)
        self.prompt_lengths = np.zeros(num_envs, dtype=np.int64)
        self.steps = np.zeros(num_envs, dtype=np.int64)
        self.running = np.zeros(num_envs, dtype=np.bool_)
        self.reward_state: npt.NDArray[Any] = np.zeros(num_envs, dtype=np.float64)  # the reward decides the dtype
        self.kl = np.zeros(num_envs, dtype=np.float64)
        self.groups = np.zeros(num_envs, dtype=np.int64)
        self.samples = [Sample("")] * num_envs
        self.assignment = PromptAssignment(components, num_envs)
        dialogue = components.dialogue
        self.user_turns = None if dialogue is None else UserTurns(dialogue, tokenizer, num_envs, components.window)

        self._log_probs: Floats | None = None
        self._scorer_errors: dict[int, str] = {}
        # Derived from the state, the latter two when first asked for.
        self._all_running = False
        self._masks: Bools | None = None
        self._now: TextBatch | None = None
        # Of the call under way, to undo it: overwritten rows of ids, and earlier states of generators.
        self._overwritten: list[tuple[Integers, Integers]] = []
        self._rng_states: list[tuple[np.random.Generator, Mapping[str, Any]]] = []
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        # The batch may hold what a scorer derived by a function that does not pickle.
        state = {name: value for name, value in self.__dict__.items() if name != "_lock"}
        return state | {"_now": None, "_masks": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()

    def _atomically(self, function: Callable[..., _Result], *args: Any) -> _Result:
        """Return ``function(*args)``, a reset or step; if it raises, undo it.

        Raises:
            RuntimeError: If another ``reset`` or ``step`` has not returned yet.
        """
        if not self._lock.acquire(blocking=False):
            raise RuntimeError(
                "reset() or step() was called while another call on the same environment has not returned; an "
                "environment serves one thread at a time"
            )
        try:
            before, assignment = self.__dict__.copy(), (self.assignment.rngs, self.assignment.state)
            user_turns = None if self.user_turns is None else self.user_turns.get_state()
            try:
                return function(*args)
            except BaseException:
                for rng, rng_state in reversed(self._rng_states):
                    rng.bit_generator.state = rng_state
                for slots, rows in self._overwritten:
                    self.ids[slots] = rows
                self.__dict__.update(before)
                self._now = None
                self.ids[np.arange(self.ids.shape[1]) >= self.lengths[:, None]] = self.pad_token_id
                self.assignment.rngs, self.assignment.state = assignment
                if self.user_turns is not None and user_turns is not None:
                    self.user_turns.set_state(user_turns)
                raise
        finally:
            self._overwritten, self._rng_states = [], []
            self._lock.release()

    def _keep_rng_states(self, slots: Integers) -> list[np.random.Generator]:
        """Return the generators of n slots, before anything is drawn from them."""
        rngs = [self.assignment.rngs[slot] for slot in slots.tolist()]
        self._rng_states += [(rng, rng.bit_generator.state) for rng in rngs]
        return rngs

    # Reset ------------------------------------------------------------------------------------------------------

    def reset(self, request: ResetRequest) -> State:
        """Start new episodes; slots that get none, because ``num_episodes`` have started, are parked.

        Raises:
            ValueError: If a prompt or prefix does not fit.
            ScorerError: If the reward scores prompts, the scorer fails, and ``on_scorer_error`` is ``"raise"``.
            InvalidActionError: If the constraints leave no valid action, and EOS is not among the actions.
            PromptsExhaustedError: If there is no prompt for an episode.
        """
        return self._atomically(self._reset, request)

    def _reset(self, request: ResetRequest) -> State:
        if request.is_full and self.components.kl is not None:
            self.components.kl.clear()
        errors = self._start(request)
        return State(self.observations(), self._reported_masks(), errors)

    def _start(self, request: ResetRequest) -> dict[int, str]:
        """Start the requested episodes; return the errors of scoring their prompts, by slot."""
        self._keep_rng_states(request.slots)
        texts, groups = self.assignment.assign(request)
        slots = request.slots[: len(texts)]
        self._scorer_errors = {}
        reward_state = self.components.reward.start(self._score, texts) if slots.size else self.reward_state[:0]

        self._overwritten.append((slots, self.ids[slots]))
        for name in COLUMNS:
            setattr(self, name, getattr(self, name).copy())
        self.ids[slots] = texts.ids
        self.lengths[slots] = texts.lengths
        self.prompt_lengths[slots] = texts.prompt_lengths
        self.steps[slots] = texts.num_new_tokens
        self.groups[slots] = groups
        self.samples = self.samples.copy()
        for slot, sample in zip(slots.tolist(), texts.samples, strict=True):
            self.samples[slot] = sample
        if self.user_turns is not None:
            self.user_turns.reset(slots, texts)
        if self.reward_state.dtype != reward_state.dtype:
            self.reward_state = self.reward_state.astype(reward_state.dtype)
        self.reward_state[slots] = reward_state
        self.kl[slots] = 0.0
        self.running[slots] = True
        self.running[request.slots[len(texts) :]] = False  # of a full reset in the middle of episodes
        if (unstarted := np.flatnonzero(self.lengths == 0)).size and self.parked.any():
            # A slot parked before its first episode gets the text of another one: its observation must be valid, and
            # that of an empty text is not.
            self.ids[unstarted], self.lengths[unstarted] = self.ids[slots[0]], self.lengths[slots[0]]
            self.prompt_lengths[unstarted] = self.prompt_lengths[slots[0]]
            for slot in unstarted.tolist():
                self.samples[slot] = self.samples[slots[0]]
        self._all_running = bool(self.running.all())
        self._masks = self._now = self._log_probs = None
        return self._scorer_errors

    @property
    def parked(self) -> Bools:
        """(N,) bool, slots without an episode because ``num_episodes`` episodes have started."""
        return ~self.running & (self.assignment.state.episodes_left == 0)

    # Step -------------------------------------------------------------------------------------------------------

    def step(
        self,
        actions: npt.ArrayLike,
        autoreset: AutoresetMode = AutoresetMode.DISABLED,
        where: Bools | None = None,
    ) -> Step:
        """Write one token in each running slot.

        Parked slots are left alone whatever their actions. With ``NEXT_STEP``, slots whose episodes ended in the
        previous step start new ones instead; with ``SAME_STEP``, slots whose episodes end start new ones at once.

        Args:
            actions: (N,) integers in ``0 .. num_actions-1``.
            autoreset: When slots start new episodes.
            where: (N,) bool, the slots to step; by default all that are not parked.

        Raises:
            ResetNeeded: If one of the slots has no running episode, or all are parked.
            ValueError: If ``actions`` has another shape, type or range.
            InvalidActionError: If an action is masked and ``on_invalid_action`` is ``"raise"``, or no action is valid.
            ScorerError: If the scorer fails and ``on_scorer_error`` is ``"raise"``, or a reward exceeds ``max_reward``.
            PromptsExhaustedError: If an episode is to start and there is no prompt for it.
        """
        step = self._atomically(self._step, actions, autoreset, where)
        if step.episode_end is not None and self._learns:
            self.components.observe(step.episode_end)
        return step

    def _step(self, actions: npt.ArrayLike, autoreset: AutoresetMode, where: Bools | None) -> Step:
        """Step the running slots, start the episodes that are due, and observe."""
        slots, to_reset = (ALL, None) if self._all_running and where is None else self._slots_to_step(autoreset, where)
        chosen = self._checked_actions(actions, slots)
        if chosen.size:
            rewards, terminated, truncated, invalid, end = self._play(chosen, slots)
        else:
            none = np.zeros(0, dtype=np.bool_)
            rewards, terminated, truncated, invalid, end = np.zeros(0), none, none, None, None
            self._scorer_errors = {}
        scorer_errors, final = self._scorer_errors, None
        if end is not None:
            scorer_errors = scorer_errors | end.scorer_errors()
            if autoreset is AutoresetMode.SAME_STEP:
                to_reset = end.slots
                final = FinalState(self.observations(end.slots), self._reported_masks())
        reset_errors = {} if to_reset is None else self._start(ResetRequest(to_reset))
        state = State(self.observations(), self._reported_masks(), reset_errors)
        played = None
        if not isinstance(slots, slice):
            played = self._spread(np.ones(slots.size, dtype=np.bool_), slots)
            rewards, terminated, truncated = (self._spread(v, slots) for v in (rewards, terminated, truncated))
            invalid = None if invalid is None else self._spread(invalid, slots)
        vectors = None
        if self.components.reports_reward_vector:
            vectors = np.zeros((self.num_envs, len(self.reward_names)))
            if end is not None:
                vectors[end.slots] = end.reward_vectors(self.reward_names)
        if end is not None:
            end.build_info()  # here, so that an error of the tokenizer undoes the step
        return Step(rewards, terminated, truncated, state, invalid, end, final, vectors, played, scorer_errors)

    def _slots_to_step(self, autoreset: AutoresetMode, where: Bools | None) -> tuple[Slots, Integers | None]:
        """Return the slots to step, and those to reset instead or None."""
        if where is not None:
            return np.flatnonzero(where), None
        is_limited = self.assignment.state.episodes_left == 0
        if is_limited and not self.running.any():
            raise ResetNeeded("all num_episodes episodes have ended: call reset()")
        if is_limited:
            return np.flatnonzero(self.running), None
        if autoreset is AutoresetMode.NEXT_STEP and self.prompt_lengths.all():  # each slot has had an episode
            return np.flatnonzero(self.running), np.flatnonzero(~self.running)
        return ALL, None

    def _checked_actions(self, actions: npt.ArrayLike, slots: Slots) -> Integers:
        """Return the (n,) actions of ``slots``."""
        if not (self._all_running or self.running[slots].all()):
            raise ResetNeeded("step() needs a running episode: call reset() before the first step and after an end")
        array = np.asarray(actions)
        if array.dtype.kind not in "iu" or array.shape != self.running.shape:
            raise ValueError(
                f"actions must be integers of shape {self.running.shape}, got dtype {array.dtype} and shape "
                f"{array.shape}"
            )
        array = array.astype(np.int64, copy=False)[slots]
        # One reduction finds both ends: a negative number is huge as an unsigned one.
        if np.maximum.reduce(array.view(np.uint64), initial=0) >= self.num_actions:
            outside = array[(array < 0) | (array >= self.num_actions)]
            raise ValueError(f"actions {outside.tolist()} are outside Discrete({self.num_actions})")
        return array

    def _play(self, actions: Integers, slots: Slots) -> tuple[Floats, Bools, Bools, Bools | None, EpisodeEnd | None]:
        """Write a token in n slots; return (n,) rewards, terminated, truncated and invalid or None, and what ended."""
        # Translate the actions into tokens, find the invalid ones, and compute the KL penalty in the old state.
        kl = self.components.kl
        tokens = self.components.actions.token_ids(actions, self._batch(slots))
        invalid = penalty = None
        if not self.masking.all_valid:
            invalid = self.masking.invalid(self.action_masks(), self._rows[slots], actions, tokens)
        if kl is not None:
            penalty = kl.penalty(self._batch(ALL), slots, tokens, self._log_probs, self._token_masks(), invalid)
        # Append the tokens and find the episodes that end.
        self._write(tokens, slots, invalid)
        batch = self._batch(slots)
        batch, terminated, truncated, reasons = self._ends(tokens, slots, invalid, batch)
        batch.done = terminated | truncated
        # Score the texts that ended and compute the rewards.
        end = self._score_ended(batch, slots, reasons)
        rewards = self._rewards(batch, slots, end)
        if invalid is not None:
            rewards = rewards - np.where(invalid, self.components.invalid_action_penalty, 0.0)
        if penalty is not None and kl is not None:
            rewards = rewards - penalty
            self.kl = _replaced(self.kl, slots, self.kl[slots] + penalty / kl.coefficient.coef)  # in nats
        if self.max_reward < math.inf and np.abs(rewards).max(initial=0.0) > self.max_reward:
            raise ScorerError(
                f"a reward of {rewards[np.abs(rewards).argmax()]} does not fit this interface, which holds at most "
                f"{self.max_reward:.3g}: rescale the scorer, or choose a reference whose KL penalty is finite"
            )
        # Stop the episodes that ended and drop what was cached of the old state.
        if end is not None:
            if penalty is not None:
                end.kl = self.kl[end.slots]
            self.running = _replaced(self.running, end.slots, False)
            self._all_running = False
        if not isinstance(slots, slice):
            self._now = None  # its ``done`` is of the time before the step
        self._masks = self._log_probs = None
        return rewards, terminated, truncated, invalid, end

    def _write(self, tokens: Integers, slots: Slots, invalid: Bools | None) -> None:
        """Append the n tokens to their texts, but for invalid ones, and count the n steps."""
        rows = self._rows[slots]
        written = slots
        if invalid is not None:
            written = rows = rows[~invalid]
            tokens = tokens[~invalid]
        positions = self.lengths[written]
        self.ids[rows, positions] = tokens
        self.lengths = _replaced(self.lengths, written, positions + 1)
        self.steps = _replaced(self.steps, slots, self.steps[slots] + 1)
        self._now = None
        if self.user_turns is not None:
            self.user_turns.is_action[rows, positions] = True

    def _ends(
        self, tokens: Integers, slots: Slots, invalid: Bools | None, batch: TextBatch
    ) -> tuple[TextBatch, Bools, Bools, list[Reason]]:
        """Find the episodes that end, after the replies of users whose turn it is.

        Returns:
            The n texts, replies included; (n,) terminated and truncated; the reasons, of which the first that is True
            counts.
        """
        is_eos = tokens == self._eos
        if invalid is not None:
            is_eos = is_eos & ~invalid
        terminated = is_eos if self.user_turns is None else np.zeros_like(is_eos)
        reasons = [("eos", terminated)]
        if invalid is not None and self.components.on_invalid_action == "terminate":
            reasons.append(("invalid_action", invalid))
            terminated = terminated | invalid
        for ending in self.components.endings:
            reasons.append((ending.reason, ending(batch)))
            terminated = terminated | reasons[-1][1]
        if self.user_turns is not None and (ends_turn := is_eos & ~terminated).any():
            reasons += self._user_replies(ends_turn, slots, batch)
            batch = self._batch(slots)
            terminated = np.logical_or.reduce([terminated, *(mask for _, mask in reasons)])
        budget = self.steps[slots] >= self.components.max_new_tokens
        reasons.append(("max_new_tokens", budget))
        if self.components.budget_terminates:
            return batch, terminated | budget, np.zeros(budget.size, dtype=np.bool_), reasons
        return batch, terminated, budget & ~terminated, reasons

    def _user_replies(self, ends_turn: Bools, slots: Slots, batch: TextBatch) -> list[Reason]:
        """Append the user's replies where a turn has ended, (n,) bool; return the reasons why dialogues end."""
        assert self.user_turns is not None
        turns = ends_turn.nonzero()[0]
        rngs = self._keep_rng_states(self._rows[slots][turns])
        found = self.user_turns.reply(batch.select(turns), rngs, self.ids, self.lengths)
        self._now = None
        reasons = [(name, np.zeros_like(ends_turn)) for name, _ in found]
        for (_, mask), (_, values) in zip(reasons, found, strict=True):
            mask[turns] = values
        return reasons

    def _score_ended(self, batch: TextBatch, slots: Slots, reasons: list[Reason]) -> EpisodeEnd | None:
        """Score the texts that have ended, if any."""
        ended = batch.done.nonzero()[0]
        if not ended.size:
            return None
        texts = batch.select(ended)
        return EpisodeEnd(
            slots=self._rows[slots][ended],
            batch=texts,
            scores=evaluate(self.components.scorer, texts, self.components.on_scorer_error),
            end_reasons=[next(name for name, mask in reasons if mask[i]) for i in ended.tolist()],
            groups=self.groups[slots][ended] if self.components.group_size > 1 else None,
            bounds=self.components.score_bounds,
        )

    def _score(self, batch: TextBatch, scorer: Scorer | None = None) -> Floats:
        """Return scores for the reward; keep the errors by slot."""
        scores = evaluate(self.components.scorer if scorer is None else scorer, batch, self.components.on_scorer_error)
        slots = self._rows if batch.slots is None else batch.slots
        self._scorer_errors |= {int(slots[row]): error for row, error in scores.errors.items()}
        return scores.total

    def _rewards(self, batch: TextBatch, slots: Slots, end: EpisodeEnd | None) -> Floats:
        """Return the (n,) float64 rewards that the reward makes of the scores; keep its state."""
        reward = self.components.reward
        final_scores = np.zeros(batch.done.size, dtype=np.float64)
        if end is not None:
            final_scores[batch.done] = end.scores.total
        self._scorer_errors = {}
        before = self.reward_state[slots]
        rewards, state = checked_rewards(reward, self._score, batch, final_scores, before)
        if state is not before:
            if state.dtype != self.reward_state.dtype:
                self.reward_state = self.reward_state.astype(np.result_type(state, self.reward_state))
            column = self.reward_state.copy()
            column[slots] = state
            self.reward_state = column
        if end is not None and reward.per_token:
            end.token_rewards = checked_token_rewards(reward, self._score, end.batch, end.scores.total)
        if end is not None and end.scores.errors:
            # With on_scorer_error="invalid", the score of a failed episode is NaN and its reward 0.
            rewards = np.where(batch.done & np.isnan(rewards), 0.0, rewards)
        if rewards is not final_scores and not np.isfinite(rewards).all():
            wrong = rewards[~np.isfinite(rewards)][0]
            raise ValueError(f"{type(reward).__name__} returned a reward of {wrong}, expected finite numbers")
        return rewards

    def _spread(self, values: npt.NDArray[Any], slots: Integers) -> npt.NDArray[Any]:
        """Return (N,) values, 0 in the other slots."""
        spread = np.zeros(self.num_envs, dtype=values.dtype)
        spread[slots] = values
        return spread

    # Observations and masks --------------------------------------------------------------------------------------

    def observations(self, slots: Slots = ALL) -> Any:
        """Return fresh observations of n slots, with n in front."""
        return self.components.observation(self._batch(slots))

    def _batch(self, slots: Slots) -> TextBatch:
        """Return n slots as they are now; the batch of all slots is made once per state."""
        if self._now is None:
            self._now = TextBatch(
                self.components.tokenizer,
                self.ids,
                self.lengths,
                self.prompt_lengths,
                self.samples,
                np.zeros(self.num_envs, dtype=np.bool_) if self._all_running else ~self.running,
                self._rows,
                None if self.user_turns is None else self.user_turns.is_action,
                None if self.user_turns is None else self.user_turns.replies,
            )
        return self._now if isinstance(slots, slice) else self._now.select(slots)

    def action_masks(self) -> Bools:
        """Return (N, num_actions) bool, read-only, True where an action is valid.

        Where the constraints leave none, EOS alone is valid.

        Raises:
            InvalidActionError: If the constraints leave none, and EOS is not among the actions.
        """
        if self._masks is None:
            self._masks = self.masking.masks(self._batch(ALL))
        return self._masks

    def _reported_masks(self) -> Bools | None:
        return self.action_masks() if self.components.reports_action_mask else None

    def _token_masks(self) -> Bools | None:
        """Return the (N, V) tokens that valid actions write; None where those always are all tokens."""
        if self.masking.all_tokens_valid:
            return None
        return self.components.actions.token_mask(self.action_masks(), self._batch(ALL))

    def set_log_probs(self, log_probs: npt.ArrayLike) -> None:
        """Set log pi(a|s) of the (N,) actions of the next step, in nats, for the KL term."""
        array = np.asarray(log_probs, dtype=np.float64)
        if array.shape != (self.num_envs,):
            raise ValueError(f"log_probs must have shape ({self.num_envs},), got {array.shape}")
        self._log_probs = array

    # Snapshots --------------------------------------------------------------------------------------------------

    def get_state(self) -> dict[str, Any]:
        """Return copies of all that ``set_state`` needs to continue exactly here: arrays, samples, generators.

        Log-probabilities set for the next step are not part of it.
        """
        return {
            **{name: getattr(self, name).copy() for name in ("ids", *COLUMNS)},
            "samples": list(self.samples),
            "rngs": self.assignment.get_rng_states(),
            "assignment": self.assignment.state,
            "kl_penalty": None if self.components.kl is None else self.components.kl.coefficient.coef,
            "user_turns": None if self.user_turns is None else self.user_turns.get_state(),
            "prompts": self.components.prompts.get_state(),
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue from a state of ``get_state``, taken from this or an equally configured core."""
        if state["ids"].shape != self.ids.shape:
            raise ValueError(
                f"the state holds ids of shape {state['ids'].shape}, this environment has {self.ids.shape}"
            )
        if state["prompts"] is not None:  # first, since it alone may refuse the state
            self.components.prompts.set_state(state["prompts"])
        for name in ("ids", *COLUMNS):
            setattr(self, name, state[name].copy())
        self.samples = list(state["samples"])
        self.assignment.set_rng_states(state["rngs"])
        self.assignment.state = state["assignment"]
        if self.components.kl is not None and state["kl_penalty"] is not None:
            self.components.kl.coefficient.coef = state["kl_penalty"]
        if self.user_turns is not None:
            self.user_turns.set_state(state["user_turns"])
        self._all_running = bool(self.running.all())
        self._masks = self._now = self._log_probs = None


def _replaced(column: npt.NDArray[Any], slots: Slots, values: Any) -> npt.NDArray[Any]:
    """Return an (N,) column with new values in ``slots``: a copy, or the values themselves where those are all."""
    if isinstance(slots, slice):
        return np.asarray(values)
    column = column.copy()
    column[slots] = values
    return column
