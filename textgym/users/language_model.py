"""A language model as the simulated user."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import isfinite
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from transformers import PreTrainedModel

from textgym.batch import TextBatch, Turn
from textgym.errors import unknown_name
from textgym.lm import LMStream, load_lm, sample
from textgym.tokenizers import ChatTemplate, as_tokenizer, find_chat_template
from textgym.users.base import Reply

__all__ = ["LMUser", "exchanged_roles", "plain_dialogue"]

Render = Callable[[str, list[Turn]], str]
INSTRUCTION = "You are the user in this dialogue. Answer the assistant as that user would, in one short sentence."


class LMUser:
    r"""A language model that writes the user's replies.

    It reads the dialogue with the roles exchanged and generates until EOS, ``max_new_tokens`` or, unless a chat
    template is used, the end of the line. All episodes whose turns have ended are answered in one batch. Each reply
    takes ``max_new_tokens`` uniform numbers from the generator of its episode (none at temperature 0), and depends only
    on these and the episode's text, up to floating-point rounding.

    A dialogue longer than the model's context is truncated on the left. ``max_reply_tokens`` of the environment must
    hold a reply and its ``reply_format``, in tokens of the environment's tokenizer: with the default format and the
    tokenizer of ``"tiny"``, about ``max_new_tokens + 17``.

    Args:
        model: A name, folder or GGUF file for ``textgym.lm.load_lm``, or a loaded model, which is copied and needs
            ``tokenizer``.
        tokenizer: Anything that ``textgym.tokenizers.as_tokenizer`` accepts; by default the model's own.
        instruction: Description of the user and its goal, placed before the dialogue; or ``f(metadata) -> str`` of the
            sample's metadata, for a goal per episode.
        max_new_tokens: Maximum tokens of a reply, in the model's tokens.
        temperature: Sampling temperature; 0 is greedy.
        outcomes: Phrase -> end reason, such as ``{"thank you, goodbye": "success"}``. The first phrase that a reply
            contains, ignoring case, ends the dialogue.
        render: Format of the dialogue: ``"chat"``, the tokenizer's chat template; ``"plain"``, lines that start with
            ``User:`` and ``Assistant:``; or ``f(instruction, messages) -> str``, with the messages of ``batch.turns``
            after the prompt's. None is ``"chat"`` if there is a template, else ``"plain"``.

    >>> user = LMUser("tiny", max_new_tokens=8, outcomes={"goodbye": "success"})
    >>> [reply] = user(TextBatch.from_texts([" Hello!"], prompts=["Hi."]), [np.random.default_rng(0)])
    >>> isinstance(reply.text, str), "\n" in reply.text
    (True, False)
    """

    def __init__(
        self,
        model: Any = "tiny",
        tokenizer: Any = None,
        *,
        instruction: str | Callable[[Mapping[str, Any]], str] = INSTRUCTION,
        max_new_tokens: int = 16,
        temperature: float = 1.0,
        outcomes: Mapping[str, str] | None = None,
        render: Literal["chat", "plain"] | Render | None = None,
    ) -> None:
        if not isinstance(max_new_tokens, int | np.integer) or max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be an integer of at least 1, got {max_new_tokens!r}")
        if not isfinite(temperature) or temperature < 0:
            raise ValueError(f"temperature must be a finite number of at least 0, got {temperature!r}")
        if not isinstance(instruction, str) and not callable(instruction):
            raise TypeError(f"instruction must be a str or f(metadata) -> str, got {instruction!r:.60}")
        self.instruction = instruction
        self.max_new_tokens = int(max_new_tokens)
        self.temperature = float(temperature)
        self.outcomes = _checked_outcomes({} if outcomes is None else outcomes)
        self.render = render
        is_loaded = isinstance(model, PreTrainedModel)
        if is_loaded and tokenizer is None:
            raise TypeError(f"a loaded model needs tokenizer=... too, got only {type(model).__name__}")
        self._source = (copy.deepcopy(model) if is_loaded else model, tokenizer)
        self._load()

    def __call__(self, batch: TextBatch, rngs: Sequence[np.random.Generator]) -> list[Reply]:
        """Return B replies."""
        dialogues = zip(batch.prompts, batch.turns, batch.metadata, strict=True)
        texts = [self._rendered(prompt, turns, metadata) for prompt, turns, metadata in dialogues]
        if not texts:
            return []
        draws = None
        if self.temperature > 0:
            draws = np.stack([rng.random(self.max_new_tokens) for rng in rngs])
        replies = [text.strip() for text in self._generate([self._encoded(text) for text in texts], draws)]
        return [Reply(text, self._outcome(text)) for text in replies]

    def __getstate__(self) -> dict[str, Any]:
        # The model is loaded again from its name; the cache is rebuilt.
        hidden = ("_stream", "_model", "_tokenizer", "_render")
        return {key: value for key, value in self.__dict__.items() if key not in hidden}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._load()

    def __deepcopy__(self, memo: dict[int, Any]) -> LMUser:
        """Return a user that shares the frozen network."""
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        twin._stream = None
        return twin

    def _load(self) -> None:
        model, tokenizer = self._source
        self._model = load_lm(model).eval().requires_grad_(False)
        config = self._model.config.get_text_config(decoder=True)
        self._tokenizer = as_tokenizer(model if tokenizer is None else tokenizer, vocab_size=int(config.vocab_size))
        self._positions: int | None = getattr(config, "max_position_embeddings", None)
        if self._positions is not None and self.max_new_tokens >= self._positions:
            raise ValueError(f"max_new_tokens is {self.max_new_tokens}, but the model has {self._positions} positions")
        self._eos_ids = _eos_ids(self._model, self._tokenizer.eos_token_id)
        self._render, self._is_chat = self._render_function(model if tokenizer is None else tokenizer)
        self._stream: LMStream | None = None

    def _render_function(self, source: Any) -> tuple[Render, bool]:
        if callable(self.render):
            return self.render, False
        if self.render not in (None, "chat", "plain"):
            raise unknown_name(
                "render", self.render, ["chat", "plain"], also="A function f(instruction, messages) is accepted too."
            )
        template = None if self.render == "plain" else find_chat_template(source)
        if template is None and self.render == "chat":
            raise ValueError("render is 'chat', but the tokenizer has no chat template")
        return (plain_dialogue, False) if template is None else (partial(exchanged_roles, template), True)

    def _rendered(self, prompt: str, turns: Sequence[Turn], metadata: Mapping[str, Any]) -> str:
        instruction = self.instruction if isinstance(self.instruction, str) else self.instruction(metadata)
        text = self._render(instruction, [{"role": "user", "content": prompt}, *turns])
        if not isinstance(text, str) or not text:
            raise ValueError(f"render must return a non-empty str, got {text!r:.60}")
        return text

    def _encoded(self, text: str) -> list[int]:
        ids = self._tokenizer.encode(text)
        return ids if self._positions is None else ids[self.max_new_tokens - self._positions :]

    def _generate(self, prompts: Sequence[list[int]], draws: npt.NDArray[np.float64] | None) -> list[str]:
        """Generate after B prompts from (B, max_new_tokens) uniform numbers, or greedily without."""
        size = len(prompts)
        stream = self._stream_for(size, max(map(len, prompts)) + self.max_new_tokens)
        ids = np.zeros((stream.num_slots, stream.window), dtype=np.int64)
        lengths = np.zeros(stream.num_slots, dtype=np.int64)
        for row, prompt in enumerate(prompts):
            ids[row, : len(prompt)] = prompt
            lengths[row] = len(prompt)
        active = np.arange(stream.num_slots) < size
        replies: list[list[int]] = [[] for _ in prompts]
        for i in range(self.max_new_tokens):
            logits = stream(ids[:, : lengths.max()], lengths, active=active).logits
            rows = active.nonzero()[0]
            tokens = self._sample(logits[torch.from_numpy(rows)], None if draws is None else draws[rows, i])
            for row, token in zip(rows.tolist(), tokens.tolist(), strict=True):
                if token not in self._eos_ids:
                    replies[row].append(token)
                    ids[row, lengths[row]] = token
                    lengths[row] += 1
                if token in self._eos_ids or self._has_ended(replies[row]):
                    active[row] = False
            if not active.any():
                break
        texts = map(self._tokenizer.decode, replies)
        return [text if self._is_chat else _first_line(text) for text in texts]

    def _sample(self, logits: torch.Tensor, draws: npt.NDArray[np.float64] | None) -> torch.Tensor:
        is_token = torch.from_numpy(self._tokenizer.token_mask).to(logits.device)
        logits = logits.float().masked_fill(~is_token, -torch.inf)
        if draws is None:
            return logits.argmax(-1)
        logits = logits - logits.amax(-1, keepdim=True)  # a low temperature must not overflow
        return sample(logits / self.temperature, uniform=torch.from_numpy(draws))

    def _has_ended(self, reply: list[int]) -> bool:
        return not self._is_chat and "\n" in self._tokenizer.decode(reply).lstrip()

    def _outcome(self, reply: str) -> str | None:
        reply = reply.casefold()
        return next((outcome for phrase, outcome in self.outcomes.items() if phrase.casefold() in reply), None)

    def _stream_for(self, num_texts: int, num_tokens: int) -> LMStream:
        """Return a stream with room for the texts; the present one if it is large enough."""
        stream = self._stream
        if stream is None or stream.num_slots < num_texts or stream.window < num_tokens:
            before = (0, 0) if stream is None else (stream.num_slots, stream.window)
            num_slots, window = (_power_of_2(max(pair)) for pair in zip(before, (num_texts, num_tokens), strict=True))
            window = window if self._positions is None else min(window, self._positions)
            self._stream = stream = LMStream(self._model, num_slots, window, prompt_cache_size=0)
        return stream


def plain_dialogue(instruction: str, messages: list[Turn]) -> str:
    r"""Return the instruction, one line per message, and ``User:``.

    >>> messages = [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": " Hi!"}]
    >>> plain_dialogue("Two friends meet.", messages)
    'Two friends meet.\n\nUser: Hello.\nAssistant: Hi!\nUser:'
    """
    lines = [f"{message['role'].capitalize()}: {' '.join(message['content'].split())}" for message in messages]
    head = [instruction.strip(), ""] if instruction.strip() else []
    return "\n".join([*head, *lines, "User:"])


def exchanged_roles(template: ChatTemplate, instruction: str, messages: list[Turn]) -> str:
    """Return the dialogue in a chat template with the roles exchanged, so that the assistant writes the user's reply.

    The instruction is the first user message: many templates require alternating roles and have no system message.
    """
    other = {"user": "assistant", "assistant": "user"}
    turns = [{"role": other[message["role"]], "content": message["content"].strip()} for message in messages]
    if instruction.strip():
        turns.insert(0, {"role": "user", "content": instruction.strip()})
    return template.render(turns)


def _checked_outcomes(outcomes: Any) -> dict[str, str]:
    if not isinstance(outcomes, Mapping) or not all(
        isinstance(text, str) for pair in outcomes.items() for text in pair
    ):
        raise TypeError(f"outcomes must map phrases to end reasons (str to str), got {outcomes!r:.60}")
    if not all(text.strip() for pair in outcomes.items() for text in pair):
        raise ValueError(f"outcomes must not contain blank phrases or end reasons, got {dict(outcomes)!r:.60}")
    return dict(outcomes)


def _eos_ids(model: PreTrainedModel, eos_token_id: int | None) -> frozenset[int]:
    """Return the ids that end a reply: the tokenizer's EOS and those of the generation config."""
    others = getattr(model.generation_config, "eos_token_id", None)
    others = others if isinstance(others, list) else [others]
    return frozenset(token for token in (eos_token_id, *others) if token is not None)


def _first_line(text: str) -> str:
    return text.lstrip().partition("\n")[0]


def _power_of_2(number: int) -> int:
    return 1 << (number - 1).bit_length()
