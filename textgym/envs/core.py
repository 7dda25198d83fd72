"""The Markov decision process itself: N episodes as arrays of token ids, stepped and reset together.

The three faces translate between this and their frameworks; nothing here knows about any of them.
"""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from gymnasium.error import ResetNeeded

from textgym.batch import TextBatch
from textgym.envs.conversation import Conversation
from textgym.envs.dealer import Dealer
from textgym.envs.finished import Finished
from textgym.envs.legality import Legality
from textgym.envs.parts import Parts
from textgym.envs.starts import begun_texts
from textgym.envs.step import Beginning, Step
from textgym.prompts import Sample
from textgym.rewards import Redistribution, kl_penalty
from textgym.scorers import Scorer, evaluate, part_names, set_progress

__all__ = ["Core"]

Slots = slice | npt.NDArray[np.int64]
NewSlots = npt.NDArray[np.int64] | Literal["ended"] | None
ALL = slice(None)


Reason = tuple[str, npt.NDArray[np.bool_]]
"""Why episodes end, and (n,) bool, True where they do for this reason."""


class Core:
    """N episodes of text generation.

    Slot i seeded with s is the very episode of a single environment seeded with s, as long as ``group_size`` is 1.

    Attributes:
        ids: (N, L) int64, prompt and completion, right-padded with ``pad_token_id`` = V.
        lengths: (N,) int64, tokens of prompt and completion.
        prompt_lengths: (N,) int64.
        steps: (N,) int64, actions taken; more than the new tokens only where illegal actions were ignored.
        running: (N,) bool, False before the first reset and after an episode's end.
    """

    def __init__(self, parts: Parts, num_envs: int) -> None:
        if num_envs < 1:
            raise ValueError(f"num_envs must be at least 1, got {num_envs}")
        self.parts = parts
        self.num_envs = num_envs
        self.pad_token_id = parts.tokenizer.vocab_size
        self.num_actions = parts.actions.size(parts.tokenizer)
        self.ids = np.full((num_envs, parts.window), self.pad_token_id, dtype=np.int64)
        self.lengths = np.zeros(num_envs, dtype=np.int64)
        self.prompt_lengths = np.zeros(num_envs, dtype=np.int64)
        self.steps = np.zeros(num_envs, dtype=np.int64)
        self.running = np.zeros(num_envs, dtype=np.bool_)
        self.memory: npt.NDArray[Any] = np.zeros(num_envs, dtype=np.float64)  # of what dtype, the reward decides
        self.kl = np.zeros(num_envs, dtype=np.float64)
        self.groups = np.zeros(num_envs, dtype=np.int64)
        self.samples = [Sample("")] * num_envs
        self.dealer = Dealer(parts, num_envs)
        self.reward_names = part_names(parts.scorer)
        self.legality = Legality(parts)
        self.conversation = (
            None if parts.dialogue is None else Conversation(parts.dialogue, parts.tokenizer, num_envs, parts.window)
        )
        self._rows = np.arange(num_envs)
        self._log_probs: npt.NDArray[np.float64] | None = None
        self._masks: npt.NDArray[np.bool_] | None = None
        self._now: TextBatch | None = None
        self._all_running = False
        self._scorer_errors: dict[int, str] = {}
        # -1 equals no token: a tokenizer without EOS never ends an episode by it.
        self._eos = -1 if parts.tokenizer.eos_token_id is None else parts.tokenizer.eos_token_id

    def __getstate__(self) -> dict[str, Any]:
        # Both are made anew when asked for; a batch may hold what a scorer derived by a function that does not pickle.
        return self.__dict__ | {"_now": None, "_masks": None}

    # Starting episodes ------------------------------------------------------------------------------------------

    def reset(
        self, slots: npt.NDArray[np.int64], options: Mapping[str, Any] | None = None, *, new_group: bool = False
    ) -> dict[int, str]:
        """Start a new episode in each of ``slots``.

        Args:
            slots: (n,) int64.
            options: Where the episodes start instead of at drawn prompts; see ``textgym.envs.starts``.
            new_group: Whether the first of them begins a new group, whatever is left of the current one.

        Returns:
            What went wrong in a reward that scores the prompts alone, by slot, where the policy is not to raise.

        Raises:
            ValueError: If a prompt or prefix does not fit.
            ScorerError: If a reward scores the prompts alone, that fails and the policy is to raise.

        After an exception every episode is as it was; prompts that were drawn are not drawn again.
        """
        return self.begin(self._prepared(slots, options, new_group))

    def _prepared(
        self, slots: npt.NDArray[np.int64], options: Mapping[str, Any] | None = None, new_group: bool = False
    ) -> Beginning:
        """Do all of a reset that can fail, and change no episode."""
        deal = self.dealer.deal
        try:
            if new_group:
                self.dealer.restart_groups()
            starts, groups = self.dealer.starts(slots, options)
            texts = begun_texts(starts, slots, self.parts)
            self._scorer_errors = {}
            memory = self.parts.reward.start(self._score, texts)
        except BaseException:
            self.dealer.deal = deal
            raise
        return Beginning(slots, texts, groups, memory, self._scorer_errors)

    def begin(self, beginning: Beginning) -> dict[int, str]:
        """Start the episodes that a step has prepared, and return their ``scorer_errors``."""
        slots, texts, groups, memory, scorer_errors = beginning
        self.ids[slots] = texts.ids
        self.lengths[slots] = texts.lengths
        self.prompt_lengths[slots] = texts.prompt_lengths
        self.steps[slots] = texts.num_new_tokens
        self.groups[slots] = groups
        for slot, sample in zip(slots.tolist(), texts.samples, strict=True):
            self.samples[slot] = sample
        if self.conversation is not None:
            self.conversation.begin(slots, texts)
        if self.memory.dtype != memory.dtype:
            self.memory = self.memory.astype(memory.dtype)
        self.memory[slots] = memory
        self.kl[slots] = 0.0
        self.running[slots] = True
        self._all_running = bool(self.running.all())
        self._masks = self._now = self._log_probs = None
        return scorer_errors

    @property
    def has_started(self) -> bool:
        """Whether every slot has had an episode."""
        return bool(self.prompt_lengths.all())

    # Stepping ---------------------------------------------------------------------------------------------------

    def step(self, actions: npt.ArrayLike, slots: Slots = ALL, *, prepare: NewSlots = None) -> Step:
        """Write one token in each of n slots.

        Args:
            actions: (n,) integers in ``0 .. num_actions-1``.
            slots: Which slots, all of them by default.
            prepare: Where new episodes are to begin after this step: other slots, or ``"ended"`` for those whose
                episodes end in it. They are ``Step.beginning``.

        Raises:
            ResetNeeded: If one of the slots has no running episode.
            ValueError: If ``actions`` has another shape, type or range.
            IllegalActionError: If the constraints forbid an action and the policy is to raise.
            ScorerError: If the scorer fails and the policy is to raise.
            PromptsExhaustedError: If an episode is to be prepared, and there is no prompt for it.

        After an exception every slot is as it was, so the step can be repeated: no result is lost because a new episode
        could not begin. Only what is outside of the slots may have moved: a scorer that learns from the texts that it
        is asked about has been asked once.
        """
        actions = self._checked(actions, slots)
        tokens = self.parts.actions.token_ids(actions, self._batch(slots))
        illegal = None if self.legality.all_legal else self._illegal(actions, tokens, slots)
        penalty = None if self.parts.kl is None else self._kl_penalty(tokens, slots, illegal)
        rows = self._rows[slots]
        written = tokens
        if illegal is not None:
            rows, written = rows[~illegal], tokens[~illegal]
        positions = self.lengths[rows]
        self.ids[rows, positions] = written
        self.lengths[rows] += 1
        self.steps[slots] += 1
        self._now = None
        said = None if self.conversation is None else self.conversation.note(rows, positions)
        try:
            return self._outcome(tokens, slots, illegal, penalty, prepare)
        except BaseException:
            self.ids[rows, positions] = self.pad_token_id
            self.lengths[rows] = positions
            self.steps[slots] -= 1
            if self.conversation is not None and said is not None:
                self.conversation.take_back(said, rows, positions, self.ids)
            self._now = None
            raise

    def _checked(self, actions: npt.ArrayLike, slots: Slots) -> npt.NDArray[np.int64]:
        running = self.running[slots]
        if not (self._all_running or running.all()):
            raise ResetNeeded("step() needs a running episode: call reset() before the first step and after an end")
        array = np.asarray(actions)
        if array.dtype.kind not in "iu" or array.shape != running.shape:
            raise ValueError(
                f"actions must be integers of shape {running.shape}, got dtype {array.dtype} and shape {array.shape}"
            )
        array = array.astype(np.int64, copy=False)
        # One reduction finds both ends: a negative number is huge as an unsigned one.
        if array.view(np.uint64).max() >= self.num_actions:
            outside = array[(array < 0) | (array >= self.num_actions)]
            raise ValueError(f"actions {outside.tolist()} are outside Discrete({self.num_actions})")
        return array

    def _illegal(
        self, actions: npt.NDArray[np.int64], tokens: npt.NDArray[np.int64], slots: Slots
    ) -> npt.NDArray[np.bool_] | None:
        """Return (n,) bool where some action is illegal, else None."""
        legal = self.action_masks()[self._rows[slots], actions]
        if legal.all():
            return None
        if self.parts.on_illegal_action == "raise":
            raise self.legality.refusal(int(actions[~legal][0]), int(tokens[~legal][0]))
        return ~legal

    def _kl_penalty(
        self, tokens: npt.NDArray[np.int64], slots: Slots, illegal: npt.NDArray[np.bool_] | None
    ) -> npt.NDArray[np.float64]:
        """Return (n,) float64, what the KL term takes from the rewards; 0 where no token is written."""
        assert self.parts.kl is not None
        everyone = np.zeros(self.num_envs, dtype=np.int64)
        everyone[slots] = tokens
        reference = self.parts.kl.reference.log_probs(self.ids, np.maximum(self.lengths, 1), everyone)[slots]
        log_probs = None if self._log_probs is None else self._log_probs[slots]
        penalty = kl_penalty(self.parts.kl.price.coef, reference, log_probs, self.parts.kl.estimator)
        return penalty if illegal is None else np.where(illegal, 0.0, penalty)

    def _outcome(
        self,
        tokens: npt.NDArray[np.int64],
        slots: Slots,
        illegal: npt.NDArray[np.bool_] | None,
        penalty: npt.NDArray[np.float64] | None,
        prepare: NewSlots,
    ) -> Step:
        """Find the ends, score them and turn scores into rewards; changes nothing until all of it has worked."""
        parts = self.parts
        batch = self._batch(slots)
        terminated, truncated, reasons = self._ends(tokens, slots, illegal, batch)
        if self._now is None:  # a user has written
            batch = self._batch(slots)
        batch.done = terminated | truncated
        rewards = np.zeros(len(batch), dtype=np.float64)
        ended = batch.done.nonzero()[0]
        finished = None
        if ended.size:
            texts = batch.select(ended)
            scores = evaluate(parts.scorer, texts, parts.on_scorer_error)
            rewards[ended] = scores.total
            finished = Finished(
                slots=self._rows[slots][ended],
                batch=texts,
                scores=scores,
                end_reasons=[next(name for name, mask in reasons if mask[i]) for i in ended.tolist()],
                groups=self.groups[slots][ended] if parts.group_size > 1 else None,
                bounds=parts.score_bounds,
            )
        self._scorer_errors = {}
        rewards, memory = parts.reward(self._score, batch, rewards, self.memory[slots])
        if finished is not None and finished.scores.error is not None:
            rewards = np.nan_to_num(rewards, nan=0.0)
        if illegal is not None:
            rewards = rewards - np.where(illegal, parts.illegal_action_penalty, 0.0)
        if finished is not None and isinstance(parts.reward, Redistribution):
            finished.token_rewards = parts.reward.token_rewards(self._score, finished.batch, finished.scores.total)
        errors = self._scorer_errors if finished is None else self._scorer_errors | finished.scorer_errors()
        if isinstance(prepare, str):
            prepare = None if finished is None else finished.slots
        beginning = None if prepare is None else self._prepared(prepare)
        if penalty is not None:
            rewards = rewards - penalty
            self._count_kl(penalty, slots, finished)
        self.memory[slots] = memory
        if finished is not None:
            self.running[finished.slots] = False
            self._all_running = False
            self.dealer.hear(finished.batch.samples, finished.scores.total)
        self._masks = self._log_probs = None
        vectors = self._reward_vectors(slots, finished) if parts.tells_reward_vector else None
        return Step(rewards, terminated, truncated, illegal, finished, vectors, errors, beginning)

    def _count_kl(self, penalty: npt.NDArray[np.float64], slots: Slots, finished: Finished | None) -> None:
        """Add what was charged to the episodes' KL, and move the price when some of them have ended."""
        assert self.parts.kl is not None
        price = self.parts.kl.price
        self.kl[slots] += penalty / price.coef
        if finished is not None:
            finished.kl = self.kl[finished.slots]
            num_tokens = max(int(finished.batch.num_actions.sum()), 1)  # an illegal first action writes none
            price.update(float(finished.kl.sum()) / num_tokens, num_tokens)

    def _reward_vectors(self, slots: Slots, finished: Finished | None) -> npt.NDArray[np.float64]:
        everyone = np.zeros((self.num_envs, len(self.reward_names)))
        if finished is not None:
            components = finished.scores.components
            # A part that failed may say nothing; a scorer without parts is its own.
            unsaid = finished.scores.total if len(self.reward_names) == 1 else np.nan
            for k, name in enumerate(self.reward_names):
                everyone[finished.slots, k] = components.get(name, unsaid)
        return everyone[slots]

    def _ends(
        self,
        tokens: npt.NDArray[np.int64],
        slots: Slots,
        illegal: npt.NDArray[np.bool_] | None,
        batch: TextBatch,
    ) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_], list[Reason]]:
        """Return (n,) terminated and truncated, and the reasons, of which the first that is True counts."""
        is_eos = tokens == self._eos
        terminated = is_eos if self.conversation is None else np.zeros_like(is_eos)
        reasons = [("eos", terminated)]
        if illegal is not None:
            is_eos = is_eos & ~illegal
            terminated = terminated & ~illegal
            reasons = [("eos", terminated)]
            if self.parts.on_illegal_action == "terminate":
                reasons.append(("illegal_action", illegal))
                terminated = terminated | illegal
        for ending in self.parts.endings:
            reasons.append((ending.reason, ending(batch)))
            terminated = terminated | reasons[-1][1]
        if self.conversation is not None and (ends_turn := is_eos & ~terminated).any():
            reasons += self._ask_user(ends_turn, slots, batch)
            terminated = np.logical_or.reduce([terminated, *(mask for _, mask in reasons)])
        budget = self.steps[slots] >= self.parts.max_new_tokens
        reasons.append(("max_new_tokens", budget))
        if self.parts.budget_terminates:
            return terminated | budget, np.zeros_like(budget), reasons
        return terminated, budget & ~terminated, reasons

    def _ask_user(self, ends_turn: npt.NDArray[np.bool_], slots: Slots, batch: TextBatch) -> list[Reason]:
        """Let the user answer where a turn has ended, (n,) bool, write the replies, and return why dialogues end."""
        assert self.conversation is not None
        turns = ends_turn.nonzero()[0]
        asked = self._rows[slots][turns]
        rngs = [self.dealer.rngs[slot] for slot in asked.tolist()]
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
        return self.parts.observation(self._batch(slots))

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
                self.parts.tokenizer,
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
        set_progress(self.parts.scorer, progress)
        set_progress(self.parts.reward, progress)

    def _score(self, batch: TextBatch, scorer: Scorer | None = None) -> npt.NDArray[np.float64]:
        """Score texts that a reward asks about, and keep what went wrong in which slot."""
        scores = evaluate(self.parts.scorer if scorer is None else scorer, batch, self.parts.on_scorer_error)
        if scores.error is not None and scores.failed is not None:
            slots = self._rows if batch.slots is None else batch.slots[scores.failed]
            self._scorer_errors |= dict.fromkeys(slots.tolist(), scores.error)
        return scores.total

    # Snapshots --------------------------------------------------------------------------------------------------

    _ARRAYS = ("ids", "lengths", "prompt_lengths", "steps", "running", "memory", "kl", "groups")

    def get_state(self) -> dict[str, Any]:
        """Return copies of all that ``set_state`` needs to continue exactly here: arrays, samples, generators."""
        return {
            **{name: getattr(self, name).copy() for name in self._ARRAYS},
            "samples": list(self.samples),
            "rngs": self.dealer.get_rng_states(),
            "deal": self.dealer.deal,
            "kl_coef": None if self.parts.kl is None else self.parts.kl.price.coef,
            "conversation": None if self.conversation is None else self.conversation.get_state(),
            "curriculum": self.dealer.get_curriculum(),
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
        for name in self._ARRAYS:
            setattr(self, name, state[name].copy())
        self.samples = list(state["samples"])
        self.dealer.set_rng_states(state["rngs"])
        self.dealer.deal = state["deal"]
        if self.parts.kl is not None and state["kl_coef"] is not None:
            self.parts.kl.price.coef = state["kl_coef"]
        if self.conversation is not None:
            self.conversation.set_state(state["conversation"])
        self.dealer.set_curriculum(state["curriculum"])
        self._all_running = bool(self.running.all())
        self._masks = self._now = self._log_probs = None
