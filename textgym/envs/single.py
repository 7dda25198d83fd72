"""The Gymnasium environment: the core at N = 1, with Gymnasium's time limit."""

import sys
from collections.abc import Mapping
from types import FrameType
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.utils import seeding

from textgym.envs.interface import CoreInterface
from textgym.envs.reset import ResetRequest, option_rows
from textgym.envs.step_result import Column, infos, reset_columns, row_of, step_columns

__all__ = ["TextGenEnv"]


class TextGenEnv(CoreInterface, gym.Env[Any, np.int64]):
    """Text generation, one token per step.

    ## Description
    The state is the token ids written so far, an action is the next token, and a scorer scores the finished text. Text
    is a view of the ids and is decoded only where a scorer or a renderer needs it.

    ## Action Space
    ``Discrete(V)``, V being the width of the model's logits: action i writes token i. ``actions=Subset([...])`` makes
    it smaller. ``action_masks()`` returns the valid actions.

    ## Observation Space
    ``Box(0, V, (L,), int64)``: prompt and completion ids, right-padded with the id V, which no token has. L is
    ``max_prompt_tokens + max_new_tokens``, and with ``user`` ``max_turns * max_reply_tokens`` more.
    ``observation="dict"`` adds attention mask, prompt length and step.

    ## Rewards
    By default the score of the completion at the last step and 0 before; ``reward="potential"``, and ``"per_token"``
    with incremental scorers, spread it over the steps. ``kl_penalty`` is subtracted per nat of KL to ``reference``,
    token by token, if the agent passes its log-probabilities to ``set_log_probs``, else per nat of cross-entropy.

    ## Starting State
    A prompt drawn from ``prompts`` by the environment's generator, or given to ``reset(options=...)`` as ``prompt``,
    ``prompt_ids`` or ``index``, with ``prefix`` or ``prefix_ids`` for the start of the completion.

    ## Episode End
    Terminated by EOS, by ``stop`` or after ``max_new_tokens`` (``time_limit="truncated"`` makes that a truncation, for
    agents that bootstrap). ``on_invalid_action`` decides whether an invalid action raises, terminates or is ignored.
    With ``user``, EOS ends the agent's turn; the episode is terminated by the outcome of a reply, or after
    ``max_turns``.

    ## Information
    At an episode's last step:

    | key | value |
    |---|---|
    | ``prompt`` | str |
    | ``completion`` | str, without special tokens |
    | ``completion_ids`` | list of int, an EOS included |
    | ``score`` | float, the scorer's total |
    | ``scores`` | dict of float by component |
    | ``length`` | int, tokens of the completion |
    | ``end_reason`` | ``"eos"``, ``"max_new_tokens"``, ``"invalid_action"`` or that of ``stop`` |

    ``stop`` gives the ``end_reason`` ``"stop_string"``, ``"sentence_end"`` or the name of a function. With ``user``,
    also ``is_action`` (list of bool, one per entry of ``completion_ids``: whether the agent chose it) and ``turns``
    (list of messages, ``{"role": "assistant" | "user", "content": str}``), and ``end_reason`` may be ``"max_turns"``
    or the outcome of a reply. With ``score_bounds``, ``score_normalised`` (float, where the bounds of the sample's
    level are known).

    And where they apply: ``group`` (int, with ``group_size`` > 1), ``kl`` (float, nats, with ``kl_penalty`` > 0),
    ``token_rewards`` (list of float, one per token, with ``reward="redistributed"``), ``scorer_error`` (str, at any
    step or reset), ``invalid_action`` (0-d bool array, True, at any step). On demand, with ``step_info``:
    ``action_mask`` ((n,) int8, at every step and reset), ``reward_vector`` ((K,) float64, at every step).

    A component of the score that does not apply to the text is missing in ``scores`` and NaN in ``reward_vector``.
    Where the scorer failed, with ``on_scorer_error="invalid"``, all scores may be NaN. With ``final_info="numbers"``
    the last step's info holds, of the keys that describe the episode, ``score``, ``length``, ``score_normalised``,
    ``group`` and ``kl``, as NumPy scalars, and with ``"none"`` no such key; ``scorer_error`` is then a 0-d bool array,
    and ``invalid_action`` and the keys of ``step_info`` are unchanged. In a vector environment each key is an (N,)
    array, with its mask under ``_key``.

    ## Arguments
    The fields of ``textgym.envs.TextGenConfig``, as keywords; ``id``, a registered id, or ``task``, whose keywords are
    the defaults; ``max_episode_steps``, which is ``max_new_tokens`` under Gymnasium's name, also in ``gym.make``; and
    ``render_mode``: with ``"ansi"``, ``render()`` returns prompt, bar and completion, in a terminal with each token
    coloured by its reward, or by its probability if the agent passes it to ``set_log_probs``; with ``"rgb_array"``
    (needs Pillow, ``textgym[render]``) a (240, 640, 3) uint8 picture of text, budget and reward, which are
    recorded from the first picture on: that one shows rewards of the last step only; with ``"human"``, ``reset`` and
    ``step`` write one line, updated in place, to stdout. In all, characters that are invisible or that a terminal obeys
    are replaced by visible ones (``textgym.rendering``).

    ## References
    Ranzato et al. 2016, Sequence level training with recurrent neural networks (arXiv:1511.06732); Ramamurthy et al.
    2023, Is reinforcement learning (not) for natural language processing (arXiv:2210.01241).

    ## Version History
    * v0: initial version.

    >>> import gymnasium, textgym
    >>> env = gymnasium.make("TextGen-v0", tokenizer="char", prompts=["Hello"], max_new_tokens=8)
    >>> observation, info = env.reset(seed=0)
    >>> env.action_space
    Discrete(97)
    """

    metadata = {"render_modes": ["human", "ansi", "rgb_array"], "render_fps": 4}  # noqa: RUF012 (Gymnasium's own declaration)

    def __init__(self, *, render_mode: str | None = None, **kwargs: Any) -> None:
        kwargs = {"max_episode_steps": _make_time_limit(self), **kwargs}
        self.observation_space, self.action_space = self._build(kwargs, 1, render_mode, self.metadata["render_modes"])
        self.np_random = self.core.assignment.rngs[0]
        self._slot = np.zeros(1, dtype=np.int64)
        self._was_reset = False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode; see the class for the options.

        Raises:
            ValueError: If an option does not fit, or a ``TimeLimit`` wrapper is shorter than the budget.
        """
        _settle_time_limits(self, self.max_new_tokens, whole_stack=not self._was_reset)
        self._was_reset = True
        rng, np_random_seed = (None, None) if seed is None else seeding.np_random(seed)
        state = self._reset(ResetRequest(self._slot, option_rows(options, 1), [rng]))
        if rng is not None and np_random_seed is not None:
            self._np_random, self._np_random_seed = rng, np_random_seed
        info = self._info(reset_columns(state, self._slot, self.config.final_info))
        return row_of(state.observation, 0), info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Write one token; see ``Core.step`` for the errors. ``action`` is an integer or a 0-d array."""
        if not isinstance(action, int | np.integer) and np.ndim(action):
            raise ValueError(
                f"action must be one integer, got an array of shape {np.shape(action)}: take its entry, action[0]"
            )
        step = self._step([action])
        _, columns = step_columns(step, self.config.final_info)
        info = self._info(columns) if columns else {}
        reward, terminated, truncated = float(step.rewards[0]), bool(step.terminated[0]), bool(step.truncated[0])
        return row_of(step.state.observation, 0), reward, terminated, truncated, info

    def render(self) -> Any:
        """Return the episode in the form of ``render_mode``, see the class."""
        return self._rendered(0, self.render_mode)

    def action_masks(self) -> npt.NDArray[np.bool_]:
        """Return (num_actions,) bool, True where an action is valid, as sb3-contrib's MaskablePPO expects it."""
        return self.core.action_masks()[0]

    def set_log_probs(self, log_probs: float) -> None:
        """Set log pi(a|s) of the next action, in nats; without it, the KL term is the cross-entropy."""
        self.core.set_log_probs([log_probs])

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue from a snapshot of this or an equally configured environment."""
        super().set_state(state)
        self.np_random = self.core.assignment.rngs[0]

    def _info(self, columns: Mapping[str, Column]) -> dict[str, Any]:
        return infos(columns, 1, self.config.final_info)[0]


def _make_time_limit(env: gym.Env[Any, Any]) -> int | None:
    """Return ``max_episode_steps`` of the ``gym.make`` call that is constructing ``env``; None without one.

    ``gym.make`` puts a ``TimeLimit`` around the finished environment without passing the limit on.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_locals.get("self") is env:
        frame = frame.f_back
    if frame is None or frame.f_code is not gym.make.__code__:
        return None
    limit: int | None = frame.f_locals.get("max_episode_steps")
    return getattr(frame.f_locals.get("env_spec"), "max_episode_steps", None) if limit is None else limit


def _settle_time_limits(env: gym.Env[Any, Any], budget: int, *, whole_stack: bool) -> None:
    """Check the ``TimeLimit`` wrappers through which ``env`` is being reset, and switch off those equal to the budget.

    A shorter limit would cut each text before it is scored, and so remove the reward; an equal one would report a text
    that ends at its last token as truncated, whatever ``time_limit`` is.
    Without ``whole_stack``, the search ends at the first caller that is no wrapper of ``env``; in the first reset,
    Gymnasium's checker, a plain function, is such a caller between wrappers.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        caller = frame.f_locals.get("self")
        if caller is not env and not _wraps(caller, env):
            if not whole_stack:
                return
        elif isinstance(caller, gym.wrappers.TimeLimit):
            limit = caller._max_episode_steps
            if limit < budget:
                raise ValueError(
                    f"a TimeLimit of {limit} steps is around an environment whose budget is {budget} tokens: its texts "
                    f"would be cut before they are scored. Give max_new_tokens={limit} to the environment instead"
                )
            if limit == budget:
                _ = caller.spec  # cached by the wrapper before its limit changes
                caller._max_episode_steps = sys.maxsize
        frame = frame.f_back


def _wraps(caller: Any, env: gym.Env[Any, Any]) -> bool:
    """Return whether ``caller`` is a wrapper of ``env``; in its constructor it may have no ``env`` yet."""
    return isinstance(caller, gym.Wrapper) and hasattr(caller, "env") and caller.unwrapped is env
