"""The Markov decision process itself: N episodes as arrays of token ids, stepped and reset together.

The three interfaces translate between this and their frameworks; nothing here knows about any of them.
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
from textgym.envs.components import EnvComponents
from textgym.envs.conversation import Conversation
from textgym.envs.episode_end import EpisodeEnd
from textgym.envs.legality import Legality
from textgym.envs.reset import PreparedReset, PromptAssignment, ResetRequest
from textgym.envs.step import FinalState, State, Step
from textgym.errors import ScorerError
from textgym.prompts import Sample
from textgym.rewards import kl_penalty
from textgym.scorers import Scorer, component_names, evaluate, observe_episodes

__all__ = ["Core"]

_Result = TypeVar("_Result")
Slots = slice | npt.NDArray[np.int64]
ALL = slice(None)


Reason = tuple[str, npt.NDArray[np.bool_]]
"""End reason, and (n,) mask of the episodes it ended."""


class Core:
    """N episodes of text generation.

    Slot i seeded with s is the very episode of a single environment seeded with s, as long as ``group_size`` is 1.

    ``reset`` and ``step`` are atomic: after an exception every episode is as it was, and the call can be repeated.
    Prompts that were drawn are not drawn again. What is learned from ended episodes cannot be undone, and is learned
    when nothing else can fail: an exception in ``observe`` of a scorer or a prompt source leaves the step taken.
    To be undone at no cost, (N,) arrays are replaced and never changed in place; only ``ids`` is written to.

    Attributes:
        ids: (N, L) int64, prompt and completion, right-padded with ``pad_token_id`` = V.
        lengths: (N,) int64, tokens of prompt and completion.
        prompt_lengths: (N,) int64.
        steps: (N,) int64, actions taken; more than the new tokens only where invalid actions were ignored.
        running: (N,) bool, False before the first reset, after an episode's end, and where a slot is parked.
    """

    def __init__(self, components: EnvComponents, num_envs: int, *, max_reward: float = math.inf) -> None:
        if num_envs < 1:
            raise ValueError(f"num_envs must be at least 1, got {num_envs}")
        self.components = components
        self.num_envs = num_envs
        self.max_reward = max_reward
        self.pad_token_id = components.tokenizer.vocab_size
        self.num_actions = components.actions.size(components.tokenizer)
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
        self.reward_names = component_names(components.scorer)
        self.legality = Legality(components)
        self.conversation = (
            None
            if components.dialogue is None
            else Conversation(components.dialogue, components.tokenizer, num_envs, components.window)
        )
        self._rows = np.arange(num_envs)
        self._log_probs: npt.NDArray[np.float64] | None = None
        self._masks: npt.NDArray[np.bool_] | None = None
        self._now: TextBatch | None = None
        self._all_running = False
        self._scorer_errors: dict[int, str] = {}
        # What the reset or step under way has overwritten, and the generators that users have drawn from.
        self._overwritten: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]] = []
        self._users_draws: list[tuple[np.random.Generator, Mapping[str, Any]]] = []
        # -1 equals no token: a tokenizer without EOS never ends an episode by it.
        self._eos = -1 if components.tokenizer.eos_token_id is None else components.tokenizer.eos_token_id
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        # Made anew when asked for; a batch may hold what a scorer derived by a function that does not pickle.
        return {name: value for name, value in self.__dict__.items() if name != "_lock"} | {
            "_now": None,
            "_masks": None,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()

    def _atomically(self, call: Callable[[], _Result]) -> _Result:
        """Return what a reset or step returns; should it raise, undo it.

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
            conversation = None if self.conversation is None else self.conversation.get_state()
            try:
                return call()
            except BaseException:
                for rng, rng_state in self._users_draws:
                    rng.bit_generator.state = rng_state
                for slots, rows in self._overwritten:
                    self.ids[slots] = rows
                self.__dict__.update(before)
                self._now = None
                self.ids[np.arange(self.ids.shape[1]) >= self.lengths[:, None]] = self.pad_token_id
                self.assignment.rngs, self.assignment.state = assignment
                if self.conversation is not None and conversation is not None:
                    self.conversation.set_state(conversation)
                raise
        finally:
            self._overwritten, self._users_draws = [], []
            self._lock.release()

    # Starting episodes ------------------------------------------------------------------------------------------

    def reset(self, request: ResetRequest) -> State:
        """Start new episodes; slots that get none, because no more are to start, are parked.

        Raises:
            ValueError: If a prompt or prefix does not fit.
            ScorerError: If a reward scores the prompts alone, that fails and the policy is to raise.
            PromptsExhaustedError: If there is no prompt for an episode.
        """
        return self._atomically(lambda: self._state(self._apply(self._prepare(request))))

    def _prepare(self, request: ResetRequest) -> PreparedReset:
        """Draw prompts, read options, and ask the reward for its first state."""
        texts, groups = self.assignment.assign(request)
        slots = request.slots[: len(texts)]
        self._scorer_errors = {}
        state = self.components.reward.start(self._score, texts) if slots.size else self.reward_state[:0]
        return PreparedReset(slots, texts, groups, state, self._scorer_errors)

    def _apply(self, reset: PreparedReset) -> dict[int, str]:
        """Start the episodes of a prepared reset, and return its ``scorer_errors``."""
        slots, texts, groups, reward_state, scorer_errors = reset
        self._overwritten.append((slots, self.ids[slots]))
        for name in self._COLUMNS:
            setattr(self, name, getattr(self, name).copy())
        self.ids[slots] = texts.ids
        self.lengths[slots] = texts.lengths
        self.prompt_lengths[slots] = texts.prompt_lengths
        self.steps[slots] = texts.num_new_tokens
        self.groups[slots] = groups
        self.samples = self.samples.copy()
        for slot, sample in zip(slots.tolist(), texts.samples, strict=True):
            self.samples[slot] = sample
        if self.conversation is not None:
            self.conversation.begin(slots, texts)
        if self.reward_state.dtype != reward_state.dtype:
            self.reward_state = self.reward_state.astype(reward_state.dtype)
        self.reward_state[slots] = reward_state
        self.kl[slots] = 0.0
        self.running[slots] = True
        if (never := np.flatnonzero(self.lengths == 0)).size and self.parked.any():
            # A slot that is parked before its first episode shows the text of another one: no text is empty.
            self.ids[never], self.lengths[never] = self.ids[slots[0]], self.lengths[slots[0]]
            self.prompt_lengths[never] = self.prompt_lengths[slots[0]]
            for slot in never.tolist():
                self.samples[slot] = self.samples[slots[0]]
        self._all_running = bool(self.running.all())
        self._masks = self._now = self._log_probs = None
        return scorer_errors

    @property
    def has_started(self) -> bool:
        """Whether every slot has had an episode."""
        return bool(self.prompt_lengths.all())

    @property
    def parked(self) -> npt.NDArray[np.bool_]:
        """(N,) bool, slots that do not play any more, because ``num_episodes`` episodes have started."""
        return ~self.running & (self.assignment.state.episodes_left == 0)

    # Stepping ---------------------------------------------------------------------------------------------------

    def step(
        self,
        actions: npt.ArrayLike,
        autoreset: AutoresetMode = AutoresetMode.DISABLED,
        *,
        which: npt.NDArray[np.bool_] | None = None,
    ) -> Step:
        """Write one token in each slot that plays.

        Parked slots are left alone whatever their actions. With ``NEXT_STEP``, so are slots whose episodes ended in
        the step before, which start new ones; with ``SAME_STEP``, slots whose episodes end start new ones at once.

        Args:
            actions: (N,) integers in ``0 .. num_actions-1``.
            autoreset: When slots start new episodes.
            which: (N,) bool, the slots to step, by default all that are not parked.

        Raises:
            ResetNeeded: If one of the slots has no running episode, or all are parked.
            ValueError: If ``actions`` has another shape, type or range.
            InvalidActionError: If the constraints forbid an action and the policy is to raise.
            ScorerError: If the scorer fails and the policy is to raise, or a reward exceeds ``max_reward``.
            PromptsExhaustedError: If an episode is to start and there is no prompt for it.
        """
        step = self._atomically(lambda: self._step(actions, autoreset, which))
        if step.episode_end is not None:
            self._learn_from(step.episode_end)
        return step

    def _playing(
        self, autoreset: AutoresetMode, which: npt.NDArray[np.bool_] | None
    ) -> tuple[Slots, npt.NDArray[np.int64] | None]:
        """Return the slots that are to be stepped, and those that are to be reset instead or None."""
        if which is not None:
            return np.flatnonzero(which), None
        if self._all_running:
            return ALL, None
        is_limited = self.assignment.state.episodes_left == 0
        if is_limited and self.running.any():
            return np.flatnonzero(self.running), None
        if is_limited:
            raise ResetNeeded("all num_episodes episodes have ended: call reset()")
        if autoreset is AutoresetMode.NEXT_STEP and self.has_started:
            return np.flatnonzero(self.running), np.flatnonzero(~self.running)
        return ALL, None

    def _step(self, actions: npt.ArrayLike, autoreset: AutoresetMode, which: npt.NDArray[np.bool_] | None) -> Step:
        """Step the slots that play, reset those that wait, and observe where that leads."""
        slots, waiting = self._playing(autoreset, which)
        chosen = self._checked(actions, slots)
        if chosen.size:
            rewards, terminated, truncated, invalid, end = self._play(chosen, slots)
        else:
            none = np.zeros(0, dtype=np.bool_)
            rewards, terminated, truncated, invalid, end = np.zeros(0), none, none, None, None
        errors = self._scorer_errors if end is None else self._scorer_errors | end.scorer_errors()
        final = None
        if end is not None and autoreset is AutoresetMode.SAME_STEP:
            waiting = end.slots
            final = FinalState(self.observe(end.slots), self._wanted_masks())
        reset_errors = {} if waiting is None else self._apply(self._prepare(ResetRequest(waiting)))
        state = self._state(reset_errors)
        if end is not None:
            end.columns  # noqa: B018 (computed here, so that a failure of the tokenizer undoes the step)
        return Step(
            rewards=self._spread(rewards, slots),
            terminated=self._spread(terminated, slots),
            truncated=self._spread(truncated, slots),
            state=state,
            invalid=None if invalid is None else self._spread(invalid, slots),
            episode_end=end,
            final=final,
            reward_vectors=self._reward_vectors(end) if self.components.reports_reward_vector else None,
            scorer_errors=errors,
            played=None if isinstance(slots, slice) else self._spread(np.ones(slots.size, dtype=np.bool_), slots),
        )

    def _checked(self, actions: npt.ArrayLike, slots: Slots) -> npt.NDArray[np.int64]:
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
        if array.view(np.uint64).max(initial=0) >= self.num_actions:
            outside = array[(array < 0) | (array >= self.num_actions)]
            raise ValueError(f"actions {outside.tolist()} are outside Discrete({self.num_actions})")
        return array

    def _play(
        self, actions: npt.NDArray[np.int64], slots: Slots
    ) -> tuple[
        npt.NDArray[np.float64],
        npt.NDArray[np.bool_],
        npt.NDArray[np.bool_],
        npt.NDArray[np.bool_] | None,
        EpisodeEnd | None,
    ]:
        """Write a token in n slots; return (n,) rewards, terminated, truncated, invalid or None, and what ended."""
        tokens = self.components.actions.token_ids(actions, self._batch(slots))
        invalid = None if self.legality.all_legal else self._invalid(actions, tokens, slots)
        penalty = None if self.components.kl is None else self._kl_penalty(tokens, slots, invalid)
        self._write(tokens, slots, invalid)
        batch = self._batch(slots)
        terminated, truncated, reasons = self._ends(tokens, slots, invalid, batch)
        if self._now is None:  # a user has written
            batch = self._batch(slots)
        batch.done = terminated | truncated
        end = self._score_ended(batch, slots, reasons)
        rewards = self._rewards(batch, slots, end)
        if invalid is not None:
            rewards = rewards - np.where(invalid, self.components.invalid_action_penalty, 0.0)
        if penalty is not None and self.components.kl is not None:
            rewards = rewards - penalty
            self.kl = _replaced(self.kl, slots, self.kl[slots] + penalty / self.components.kl.coefficient.coef)
        if self.max_reward < math.inf and np.abs(rewards).max(initial=0.0) > self.max_reward:
            raise ScorerError(
                f"a reward of {rewards[np.abs(rewards).argmax()]} does not fit this interface, which holds at most "
                f"{self.max_reward:.3g}: rescale the scorer, or choose a reference whose KL penalty is finite"
            )
        if end is not None:
            if penalty is not None:
                end.kl = self.kl[end.slots]
            self.running = _replaced(self.running, end.slots, False)
            self._all_running = False
        if not isinstance(slots, slice):
            self._now = None  # which does not know yet what has ended
        self._masks = self._log_probs = None
        return rewards, terminated, truncated, invalid, end

    def _write(self, tokens: npt.NDArray[np.int64], slots: Slots, invalid: npt.NDArray[np.bool_] | None) -> None:
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
        if self.conversation is not None:
            self.conversation.is_action[rows, positions] = True

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

    def _rewards(self, batch: TextBatch, slots: Slots, end: EpisodeEnd | None) -> npt.NDArray[np.float64]:
        """Return (n,) float64, what the reward makes of the scores; keep its state."""
        reward = self.components.reward
        final_scores = np.zeros(len(batch), dtype=np.float64)
        if end is not None:
            final_scores[batch.done] = end.scores.total
        self._scorer_errors = {}
        before = self.reward_state[slots]
        final_scores.flags.writeable = before.flags.writeable = False
        rewards, state = reward(self._score, batch, final_scores, before)
        final_scores.flags.writeable = True
        if state is not before or rewards is not final_scores:  # as in most rewards but the terminal one
            rewards, state = np.array(rewards, dtype=np.float64), np.asarray(state)
            if rewards.shape != final_scores.shape or state.shape != final_scores.shape:
                raise ValueError(
                    f"{type(reward).__name__} returned rewards of shape {rewards.shape} and a state of shape "
                    f"{state.shape} for {len(batch)} episodes, expected {final_scores.shape} for both"
                )
            if state.dtype != self.reward_state.dtype:
                self.reward_state = self.reward_state.astype(np.result_type(state, self.reward_state))
            self.reward_state = _replaced(self.reward_state, slots, state)
        if end is not None and reward.per_token:
            end.token_rewards = self._token_rewards(end)
        if end is not None and end.scores.errors:  # an episode whose scorer failed under the policy "invalid" gets 0
            rewards = np.where(batch.done & np.isnan(rewards), 0.0, rewards)
        if rewards is not final_scores and not np.isfinite(rewards).all():
            wrong = rewards[~np.isfinite(rewards)][0]
            raise ValueError(f"{type(reward).__name__} returned a reward of {wrong}, expected finite numbers")
        return rewards

    def _token_rewards(self, end: EpisodeEnd) -> list[npt.NDArray[np.float64]] | None:
        reward = self.components.reward
        shares = reward.on_episode_end(self._score, end.batch, end.scores.total)
        if shares is None:
            return None
        shares = [np.asarray(share, dtype=np.float64) for share in shares]
        if [share.shape for share in shares] != [(length,) for length in end.batch.num_new_tokens.tolist()]:
            raise ValueError(
                f"{type(reward).__name__}.on_episode_end returned {[share.size for share in shares]} rewards for texts "
                f"of {end.batch.num_new_tokens} tokens"
            )
        return shares

    def _learn_from(self, end: EpisodeEnd) -> None:
        """Tell what learns from the course of training how episodes ended."""
        scores = end.scores.without_replacements()
        if self.components.observes_episodes:
            seen: set[int] = set()
            observe_episodes(self.components.scorer, end.batch, scores, seen)
            self.components.reward.observe(end.batch, seen)
        if (
            self.components.observes_episodes or self.components.prompts.get_state() is not None
        ):  # of which a clone has a copy
            self.components.prompts.observe(end.batch.samples, scores.total)
        if self.components.kl is not None and end.kl is not None:
            num_tokens = max(int(end.batch.num_actions.sum()), 1)  # an invalid first action writes none
            self.components.kl.coefficient.update(float(end.kl.sum()) / num_tokens, num_tokens)

    def _spread(self, values: npt.NDArray[Any], slots: Slots) -> npt.NDArray[Any]:
        """Return (N,) values, 0 in the other slots."""
        if isinstance(slots, slice):
            return values
        everyone = np.zeros(self.num_envs, dtype=values.dtype)
        everyone[slots] = values
        return everyone

    def _invalid(
        self, actions: npt.NDArray[np.int64], tokens: npt.NDArray[np.int64], slots: Slots
    ) -> npt.NDArray[np.bool_] | None:
        """Return (n,) bool where some action is invalid, else None."""
        legal = self.action_masks()[self._rows[slots], actions]
        if legal.all():
            return None
        if self.components.on_invalid_action == "raise":
            raise self.legality.refusal(int(actions[~legal][0]), int(tokens[~legal][0]))
        return ~legal

    def _kl_penalty(
        self, tokens: npt.NDArray[np.int64], slots: Slots, invalid: npt.NDArray[np.bool_] | None
    ) -> npt.NDArray[np.float64]:
        """Return (n,) float64, the KL penalty of each action; 0 where no token is written.

        Policy and reference are compared on the same support: the tokens that are legal here.
        """
        kl = self.components.kl
        assert kl is not None
        everyone, active = np.zeros(self.num_envs, dtype=np.int64), np.zeros(self.num_envs, dtype=np.bool_)
        everyone[slots], active[slots] = tokens, True
        lengths = np.maximum(self.lengths, 1)
        masks = None
        if not self.legality.all_tokens_legal:
            masks = self.components.actions.token_mask(self.action_masks(), self._batch(ALL))
        reference = np.asarray(
            kl.reference.log_probs(self.ids, lengths, everyone, token_masks=masks, active=active), dtype=np.float64
        )
        if reference.shape != active.shape:
            raise ValueError(f"the KL reference returned shape {reference.shape}, expected {active.shape}")
        reference = reference[slots]
        log_probs = None if self._log_probs is None else self._log_probs[slots]
        if invalid is not None:
            reference = np.where(invalid, 0.0, reference)
            log_probs = None if log_probs is None else np.where(invalid, 0.0, log_probs)
        # A reference may rule a token out, which makes the penalty infinite; the policy has drawn it.
        for name, values, least in (("the KL reference", reference, -np.inf), ("set_log_probs", log_probs, -1e30)):
            if values is not None and (wrong := ~((values >= least) & (values <= 1e-4))).any():
                raise ValueError(f"{name} gave the log-probability {values[wrong][0]} for token {tokens[wrong][0]}")
        return kl_penalty(kl.coefficient.coef, reference, log_probs, kl.estimator)

    def _reward_vectors(self, end: EpisodeEnd | None) -> npt.NDArray[np.float64]:
        everyone = np.zeros((self.num_envs, len(self.reward_names)))
        if end is not None:
            components = end.scores.components
            # A part that failed may say nothing; a scorer without parts is its own.
            unsaid = end.scores.total if len(self.reward_names) == 1 else np.nan
            for k, name in enumerate(self.reward_names):
                everyone[end.slots, k] = components.get(name, unsaid)
        return everyone

    def _ends(
        self,
        tokens: npt.NDArray[np.int64],
        slots: Slots,
        invalid: npt.NDArray[np.bool_] | None,
        batch: TextBatch,
    ) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_], list[Reason]]:
        """Return (n,) terminated and truncated, and the reasons, of which the first that is True counts."""
        is_eos = tokens == self._eos
        terminated = is_eos if self.conversation is None else np.zeros_like(is_eos)
        reasons = [("eos", terminated)]
        if invalid is not None:
            is_eos = is_eos & ~invalid
            terminated = terminated & ~invalid
            reasons = [("eos", terminated)]
            if self.components.on_invalid_action == "terminate":
                reasons.append(("invalid_action", invalid))
                terminated = terminated | invalid
        for ending in self.components.endings:
            reasons.append((ending.reason, ending(batch)))
            terminated = terminated | reasons[-1][1]
        if self.conversation is not None and (ends_turn := is_eos & ~terminated).any():
            reasons += self._ask_user(ends_turn, slots, batch)
            terminated = np.logical_or.reduce([terminated, *(mask for _, mask in reasons)])
        budget = self.steps[slots] >= self.components.max_new_tokens
        reasons.append(("max_new_tokens", budget))
        if self.components.budget_terminates:
            return terminated | budget, np.zeros(budget.size, dtype=np.bool_), reasons
        return terminated, budget & ~terminated, reasons

    def _ask_user(self, ends_turn: npt.NDArray[np.bool_], slots: Slots, batch: TextBatch) -> list[Reason]:
        """Let the user answer where a turn has ended, (n,) bool, write the replies, and return why dialogues end."""
        assert self.conversation is not None
        turns = ends_turn.nonzero()[0]
        asked = self._rows[slots][turns]
        rngs = [self.assignment.rngs[slot] for slot in asked.tolist()]
        self._users_draws += [(rng, rng.bit_generator.state) for rng in rngs]
        replies, tokens = self.conversation.ask(batch.select(turns), rngs)
        self.conversation.write(asked, replies, tokens, self.ids, self.lengths)
        self._now = None
        names = [reply.outcome for reply in replies]
        used_up = self.conversation.num_turns(asked) >= self.conversation.dialogue.max_turns
        reasons = [(name, np.zeros_like(ends_turn)) for name in dict.fromkeys(names) if name is not None]
        for name, mask in reasons:
            mask[turns] = [found == name for found in names]
        reasons.append(("max_turns", np.zeros_like(ends_turn)))
        reasons[-1][1][turns] = used_up
        return reasons

    # Looking ----------------------------------------------------------------------------------------------------

    def observe(self, slots: Slots = ALL) -> Any:
        """Return fresh observations of n slots, with n in front."""
        return self.components.observation(self._batch(slots))

    def _state(self, scorer_errors: dict[int, str]) -> State:
        return State(self.observe(), self._wanted_masks(), scorer_errors)

    def _wanted_masks(self) -> npt.NDArray[np.bool_] | None:
        return self.action_masks() if self.components.reports_action_mask else None

    def action_masks(self) -> npt.NDArray[np.bool_]:
        """Return (N, num_actions) bool, read-only, True where an action is legal now.

        Where the constraints leave nothing, EOS alone is legal, so that an agent never stands before an empty set.
        """
        if self._masks is None:
            self._masks = self.legality.masks(self._batch(ALL))
        return self._masks

    def set_log_probs(self, log_probs: npt.ArrayLike) -> None:
        """Tell the KL term log pi(a|s) of the (N,) actions of the next step, in nats.

        Raises:
            ValueError: If the shape is not (N,).
        """
        array = np.asarray(log_probs, dtype=np.float64)
        if array.shape != (self.num_envs,):
            raise ValueError(f"log_probs must have shape ({self.num_envs},), got {array.shape}")
        self._log_probs = array

    def _batch(self, slots: Slots) -> TextBatch:
        """Return n slots as they are now; the batch of all slots is made once per state."""
        if not isinstance(slots, slice):
            return self._batch(ALL).select(slots)
        if self._now is None:
            self._now = TextBatch(
                self.components.tokenizer,
                self.ids,
                self.lengths,
                self.prompt_lengths,
                self.samples,
                ~self.running,
                self._rows,
                None if self.conversation is None else self.conversation.is_action,
                None if self.conversation is None else self.conversation.replies,
            )
        return self._now

    def set_progress(self, progress: float) -> None:
        """Tell the scorer, and a reward that has its own, which share of training, 0 to 1, is done.

        Raises:
            ValueError: If it is outside of that.
        """
        if not 0 <= progress <= 1:
            raise ValueError(f"progress must be between 0 and 1, got {progress!r}")
        self.components.scorer.set_progress(progress)
        self.components.reward.set_progress(progress)

    def _score(self, batch: TextBatch, scorer: Scorer | None = None) -> npt.NDArray[np.float64]:
        """Score texts that a reward asks about, and keep what went wrong in which slot."""
        scores = evaluate(self.components.scorer if scorer is None else scorer, batch, self.components.on_scorer_error)
        slots = self._rows if batch.slots is None else batch.slots
        self._scorer_errors |= {int(slots[row]): error for row, error in scores.errors.items()}
        return scores.total

    # Snapshots --------------------------------------------------------------------------------------------------

    _COLUMNS = ("lengths", "prompt_lengths", "steps", "running", "reward_state", "kl", "groups")

    def get_state(self) -> dict[str, Any]:
        """Return copies of all that ``set_state`` needs to continue exactly here: arrays, samples, generators."""
        return {
            **{name: getattr(self, name).copy() for name in ("ids", *self._COLUMNS)},
            "samples": list(self.samples),
            "rngs": self.assignment.get_rng_states(),
            "assignment": self.assignment.state,
            "kl_penalty": None if self.components.kl is None else self.components.kl.coefficient.coef,
            "conversation": None if self.conversation is None else self.conversation.get_state(),
            "prompts": self.components.prompts.get_state(),
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue from a state of ``get_state``, taken from this or an equally configured core.

        Raises:
            ValueError: If the state is of another number of slots or another window.
        """
        if state["ids"].shape != self.ids.shape:
            raise ValueError(
                f"the state holds ids of shape {state['ids'].shape}, this environment has {self.ids.shape}"
            )
        if state["prompts"] is not None:  # first, since it alone may refuse the state
            self.components.prompts.set_state(state["prompts"])
        for name in ("ids", *self._COLUMNS):
            setattr(self, name, state[name].copy())
        self.samples = list(state["samples"])
        self.assignment.set_rng_states(state["rngs"])
        self.assignment.state = state["assignment"]
        if self.components.kl is not None and state["kl_penalty"] is not None:
            self.components.kl.coefficient.coef = state["kl_penalty"]
        if self.conversation is not None:
            self.conversation.set_state(state["conversation"])
        self._all_running = bool(self.running.all())
        self._masks = self._now = self._log_probs = None


def _replaced(column: npt.NDArray[Any], slots: Slots, values: Any) -> npt.NDArray[Any]:
    """Return a copy of an (N,) column with other values in ``slots``."""
    column = column.copy()
    column[slots] = values
    return column
