"""The stream: cached logits equal uncached ones through any resets, and the model is not modified."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM, PreTrainedModel

from models import SHAPES, VOCABULARY, build, fed_tokens, model_of
from textgym.lm import LMStream, ReferenceLM
from textgym.lm.kv_cache import packed

torch.set_num_threads(1)

WINDOW, NUM_SLOTS = 16, 3
PROMPTS = ((1,), (2, 3, 4), (2, 3, 4, 5, 6, 7), (8, 9), (2, 3, 10, 11, 12))


def stream_of(model: PreTrainedModel, window: int = WINDOW, **kwargs: int) -> LMStream:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*runs uncached")
        return LMStream(model, NUM_SLOTS, window, **kwargs)


def window_of(*texts: tuple[int, ...], width: int = WINDOW) -> NDArray[np.int64]:
    return np.array([(*text, *[VOCABULARY] * (width - len(text))) for text in texts])


def uncached(model: PreTrainedModel, *texts: tuple[int, ...]) -> torch.Tensor:
    """Return the logits after each text, from one forward per text."""
    with torch.no_grad():
        return torch.stack([model(torch.tensor([text]), use_cache=False).logits[0, -1] for text in texts])


def assert_right(stream: LMStream, *texts: tuple[int, ...]) -> None:
    logits = stream(window_of(*texts, width=stream.window)).logits
    torch.testing.assert_close(logits, uncached(stream.model, *texts), atol=1e-4, rtol=0)


tokens = st.integers(0, VOCABULARY - 1)
events = st.one_of(
    st.tuples(st.just("append"), tokens),
    st.tuples(st.just("append"), tokens),
    st.tuples(st.just("restart"), st.integers(0, len(PROMPTS) - 1)),
    st.tuples(st.just("edit"), tokens),
    st.tuples(st.just("cut"), tokens),
    st.tuples(st.just("wait"), tokens),
)


def changed(text: tuple[int, ...], kind: str, value: int) -> tuple[int, ...]:
    if kind == "restart" or len(text) == WINDOW:
        return PROMPTS[value % len(PROMPTS)]
    middle = value % len(text)
    return {
        "append": (*text, value),
        "edit": (*text[:middle], (text[middle] + 1) % VOCABULARY, *text[middle + 1 :]),
        "cut": text[: middle + 1],
        "wait": text,
    }[kind]


def some_texts(max_examples: int) -> Callable[[Callable], Callable]:
    """Decorate a property of texts that grow, restart and are edited in the slots of a stream."""
    given_texts = given(
        steps=st.lists(st.tuples(*[events] * NUM_SLOTS), min_size=1, max_size=12),
        prompt_cache_size=st.sampled_from([0, 1, 8]),
    )
    too_slow = [HealthCheck.too_slow]
    options = settings(max_examples=max_examples, deadline=None, derandomize=True, suppress_health_check=too_slow)
    return lambda test: options(given_texts(test))


@pytest.mark.slow
@pytest.mark.parametrize("name", SHAPES)
@some_texts(40)
def test_cached_logits_of_every_architecture_equal_uncached_ones(
    name: str, steps: list[tuple[tuple[str, int], ...]], prompt_cache_size: int
) -> None:
    check_cache(name, steps, prompt_cache_size)


@pytest.mark.parametrize("name", ["Llama", "BLOOM", "Mamba"])
@some_texts(12)
def test_cached_logits_of_each_backend_equal_uncached_ones(
    name: str, steps: list[tuple[tuple[str, int], ...]], prompt_cache_size: int
) -> None:
    check_cache(name, steps, prompt_cache_size)


def check_cache(name: str, steps: list[tuple[tuple[str, int], ...]], prompt_cache_size: int) -> None:
    model = model_of(name)
    stream = stream_of(model, prompt_cache_size=prompt_cache_size)
    assert stream.backend == SHAPES[name][0]
    texts = list(PROMPTS[:NUM_SLOTS])
    assert_right(stream, *texts)
    for step in steps:
        texts = [changed(text, *event) for text, event in zip(texts, step, strict=True)]
        active = np.array([kind != "wait" for kind, _ in step])
        logits, hidden = stream(window_of(*texts), active=active)
        expected = uncached(model, *texts)
        torch.testing.assert_close(logits[active], expected[active], atol=1e-4, rtol=0)
        assert not logits[~active].any()
        assert not hidden[~active].any()


@pytest.mark.parametrize("name", ["GPT-2", "Gemma 2", "BLOOM"])
def test_rows_grow_with_the_longest_text(name: str) -> None:
    stream = stream_of(model_of(name), window=60)
    long = tuple(i % VOCABULARY for i in range(50))
    for length in (3, 31, 32, 33, 34, 50):
        assert_right(stream, long[:length], long[:2], long[7 : 7 + length // 2])


def test_many_missing_tokens_are_fed_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("Llama")
    stream = stream_of(model)
    monkeypatch.setattr(packed, "_TOKENS_PER_FORWARD", 8)
    with fed_tokens(model) as fed:
        stream(window_of(*PROMPTS[1:4]))
    assert fed == [3, 8]
    assert_right(stream, *PROMPTS[1:4])


def test_hidden_is_the_input_of_the_lm_head() -> None:
    model = model_of("OPT")
    logits, hidden = stream_of(model)(window_of(*PROMPTS[:3]))
    assert hidden.shape == (NUM_SLOTS, 8)
    torch.testing.assert_close(model.get_output_embeddings()(hidden), logits)


def test_a_step_feeds_one_token_per_slot() -> None:
    model = model_of("GPT-2")
    stream = stream_of(model)
    stream(window_of(*PROMPTS[:3]))
    with fed_tokens(model) as fed:
        stream(window_of(*((*prompt, 5) for prompt in PROMPTS[:3])))
        stream(window_of(*((*prompt, 5) for prompt in PROMPTS[:3])), active=np.array([True, False, False]))
    assert fed == [3, 1]


class CountCopies(TorchDispatchMode):
    """Counts the elements that gathering operations copy."""

    def __init__(self) -> None:
        super().__init__()
        self.num_elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if function in (
            torch.ops.aten.index_select.default,
            torch.ops.aten.index.Tensor,
            torch.ops.aten.gather.default,
        ):
            self.num_elements += result.numel()
        return result


@pytest.mark.parametrize("name", ["GPT-2", "Llama", "Gemma 2"])
def test_a_few_idle_slots_do_not_make_a_step_copy_the_cache(name: str) -> None:
    stream = LMStream(model_of(name), num_slots=16, window=WINDOW)
    texts = np.arange(16 * WINDOW).reshape(16, WINDOW) % VOCABULARY
    active = np.arange(16) > 0
    copied = {}
    for length, mask in ((6, None), (7, None), (8, active), (9, active)):
        with CountCopies() as count:
            stream(texts, np.full(16, length), active=mask)
        copied[length] = count.num_elements
    columns = 16 * 16  # elements in one column of one layer's keys or values, over all slots and heads
    assert copied[9] - copied[7] <= 2 * 2 * columns, "the keys or values of several columns were copied"


def test_a_repeated_prompt_is_not_fed_again() -> None:
    model = model_of("GPT-2")
    stream = stream_of(model)
    other = (20, 21, 22, 23)
    with fed_tokens(model) as fed:
        for _ in range(3):
            stream(window_of(PROMPTS[2], PROMPTS[0], PROMPTS[0]))
            stream(window_of(other, PROMPTS[0], PROMPTS[0]))
    assert fed == [8, 6, 8, 6, 3, 3]
    assert_right(stream, PROMPTS[2], other, PROMPTS[2])


def test_a_cleared_stream_feeds_what_a_new_one_feeds() -> None:
    model = model_of("GPT-2")
    stream = stream_of(model, window=60)
    long = tuple(i % VOCABULARY for i in range(50))
    feeds = []
    for _ in range(2):
        with fed_tokens(model) as fed:
            for texts in (PROMPTS[:3], (long, *PROMPTS[:2]), PROMPTS[:3], (PROMPTS[2], long, long)):
                stream(window_of(*texts, width=60))
        feeds.append(list(fed))
        stream.clear()
    assert feeds[0] == feeds[1]


def test_slots_that_start_with_one_prompt_feed_it_once() -> None:
    model = model_of("GPT-2")
    stream = stream_of(model, prompt_cache_size=0)
    stream(window_of(PROMPTS[0], PROMPTS[2][:2], PROMPTS[0]))
    with fed_tokens(model) as fed:
        assert_right(stream, PROMPTS[2], PROMPTS[2], PROMPTS[2])
    assert fed[0] == NUM_SLOTS + len(PROMPTS[2]) - 1


def test_lengths_replace_padding() -> None:
    model = model_of("GPT-2")
    stream = stream_of(model, pad_token_id=0)
    ids, lengths = np.array([[1, 2, 7], [3, 4, 5], [6, -100, 9]], np.int32), torch.tensor([2, 3, 1])
    expected = uncached(model, (1, 2), (3, 4, 5), (6,))
    torch.testing.assert_close(stream(ids, lengths).logits, expected, atol=1e-4, rtol=0)
    full = ((1, 2, 7), (3, 4, 5), (6, 8, 9))
    for ends in ((1, 3, 1), (3, 3, 3)):  # ids past an end do not count as cached
        expected_now = uncached(model, *(text[:end] for text, end in zip(full, ends, strict=True)))
        torch.testing.assert_close(stream(np.array(full), np.array(ends)).logits, expected_now, atol=1e-4, rtol=0)
    padded = torch.tensor([[1, 2, 0], [3, 4, 5], [6, 0, 0]])
    torch.testing.assert_close(stream(padded).logits, expected, atol=1e-4, rtol=0)


def test_changed_weights_are_detected() -> None:
    model = build("GPT-2")
    stream = stream_of(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    for _ in range(2):
        for _ in range(3):
            assert_right(stream, *PROMPTS[1:4])
            assert_right(stream, *PROMPTS[:3])
        model(torch.tensor([PROMPTS[2]]), labels=torch.tensor([PROMPTS[2]])).loss.backward()
        optimizer.step()
    assert_right(stream, *PROMPTS[1:4])
    model.load_state_dict(build("GPT-2").state_dict())
    assert_right(stream, *PROMPTS[1:4])


def test_clear_handles_weights_changed_without_autograd() -> None:
    model = build("GPT-2")
    stream = stream_of(model)
    assert_right(stream, *PROMPTS[1:4])
    for parameter in model.parameters():
        parameter.data = parameter.data * 1.5
    stream.clear()
    assert_right(stream, *PROMPTS[1:4])


@pytest.mark.parametrize("name", ["GPT-2", "Gemma 2", "GPT-J"])
def test_the_model_trains_as_if_there_were_no_stream(name: str) -> None:
    ids = torch.randint(VOCABULARY, (2, 9), generator=torch.Generator().manual_seed(0))

    def gradients(model: PreTrainedModel) -> list[torch.Tensor]:
        model.train()
        torch.manual_seed(1)
        model(ids, labels=ids).loss.backward()
        return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]

    plain, streamed = build(name), build(name)
    implementation = streamed.config._attn_implementation
    streamed.train()
    stream = stream_of(streamed)
    logits = stream(window_of(*PROMPTS[:3])).logits
    assert streamed.training
    assert not logits.requires_grad
    torch.testing.assert_close(logits, uncached(plain, *PROMPTS[:3]), atol=1e-4, rtol=0)
    for one, other in zip(gradients(plain), gradients(streamed), strict=True):
        assert torch.equal(one, other)
    assert streamed.config._attn_implementation == implementation
    assert not streamed.get_output_embeddings()._forward_pre_hooks


def test_hidden_states_feed_a_value_head_that_trains() -> None:
    head = torch.nn.Linear(16, 1)
    head(stream_of(model_of("Llama"))(window_of(*PROMPTS[:3])).hidden).sum().backward()
    assert head.weight.grad is not None


def test_the_saved_model_has_no_trace_of_the_stream(tmp_path: Path) -> None:
    model = build("Llama")
    stream = stream_of(model)
    stream(window_of(*PROMPTS[:3]))
    model.save_pretrained(tmp_path)
    assert "textgym" not in (tmp_path / "config.json").read_text()
    assert json.loads((tmp_path / "config.json").read_text())["vocab_size"] == VOCABULARY
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    torch.testing.assert_close(uncached(again, *PROMPTS), uncached(model, *PROMPTS))


def test_generate_is_unaffected() -> None:
    model = build("GPT-2")
    prompt = torch.tensor([PROMPTS[2]])
    before = model.generate(prompt, do_sample=False, max_new_tokens=5, eos_token_id=None)
    stream_of(model)(window_of(*PROMPTS[:3]))
    assert torch.equal(model.generate(prompt, do_sample=False, max_new_tokens=5, eos_token_id=None), before)


def test_two_streams_share_a_model() -> None:
    model = model_of("Mistral")
    one, other = stream_of(model), stream_of(model)
    assert_right(one, *PROMPTS[:3])
    assert_right(other, *PROMPTS[2:5])
    assert_right(one, *((*prompt, 9) for prompt in PROMPTS[:3]))


@pytest.mark.parametrize("name", ["GPT-2", "Llama", "GPT-J"])
def test_bfloat16_weights_give_bfloat16_logits(name: str) -> None:
    model = build(name).to(torch.bfloat16)
    stream = stream_of(model)
    assert stream.backend == SHAPES[name][0]
    for length in (2, 3):
        texts = [prompt[:length] for prompt in PROMPTS[1:4]]
        logits = stream(window_of(*texts)).logits
        assert logits.dtype == torch.bfloat16
        torch.testing.assert_close(logits, uncached(model, *texts), atol=0.1, rtol=0.05)


def test_a_model_without_a_cache_warns() -> None:
    with pytest.warns(UserWarning, match="MambaForCausalLM runs uncached"):
        stream = LMStream(model_of("Mamba"), NUM_SLOTS, WINDOW)
    assert stream.backend == "uncached"


def test_local_attention_without_the_interface_runs_uncached() -> None:
    config = transformers.GPTNeoConfig(
        vocab_size=VOCABULARY, hidden_size=16, num_layers=2, attention_types=[[["global", "local"], 1]], num_heads=4,
        max_position_embeddings=64, window_size=4,
    )  # fmt: skip
    stream = stream_of(transformers.GPTNeoForCausalLM(config).eval())
    assert stream.backend == "uncached"
    assert_right(stream, *PROMPTS[1:4])


def test_a_failed_forward_invalidates_the_cache() -> None:
    model = build("GPT-2")
    stream = stream_of(model)
    assert_right(stream, *PROMPTS[:3])

    def fail(*_: object) -> None:
        raise RuntimeError("out of memory")

    hook = model.transformer.h[1].register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        stream(window_of(*PROMPTS[1:4]))
    hook.remove()
    assert_right(stream, *PROMPTS[:3])


def test_without_active_slots_nothing_is_fed() -> None:
    logits, hidden = stream_of(model_of("GPT-2"))(window_of(*PROMPTS[:3]), active=np.zeros(NUM_SLOTS, bool))
    assert logits.shape == (NUM_SLOTS, VOCABULARY)
    assert hidden.shape == (NUM_SLOTS, 16)


def test_a_window_of_one_token() -> None:
    assert_right(stream_of(model_of("GPT-2"), window=1), (1,), (2,), (3,))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"ids": np.zeros((2, 4), int)}, ValueError, r"ids must have shape \(3, 1 to 16\), got \(2, 4\)"),
        ({"ids": np.zeros((3, 17), int)}, ValueError, r"got \(3, 17\)"),
        ({"ids": np.zeros((3, 4))}, TypeError, "ids must be integers, got float64"),
        ({"ids": np.full((3, 4), VOCABULARY)}, ValueError, "sequences must have 1 to 4 tokens, got 0 to 0"),
        ({"ids": np.full((3, 4), VOCABULARY + 1)}, ValueError, "0 to 28, got 30"),
        ({"ids": np.zeros((3, 4), int), "lengths": np.array([1, 2, 5])}, ValueError, "1 to 4 tokens, got 1 to 5"),
        ({"ids": np.zeros((3, 4), int), "lengths": np.ones(2, int)}, ValueError, r"lengths must have shape \(3,\)"),
        ({"ids": np.zeros((3, 4), int), "active": np.ones(3, int)}, TypeError, "active must be booleans, got int64"),
    ],
)
def test_invalid_input_is_rejected_and_nothing_is_fed(
    arguments: dict[str, NDArray], error: type[Exception], message: str
) -> None:
    stream = stream_of(model_of("GPT-2"))
    assert_right(stream, *PROMPTS[:3])
    with pytest.raises(error, match=message):
        stream(**arguments)
    with fed_tokens(stream.model) as fed:
        stream(window_of(*PROMPTS[:3]))
    assert fed == [NUM_SLOTS]


def test_a_window_beyond_the_positions_is_rejected() -> None:
    with pytest.raises(ValueError, match="window is 65 tokens, but GPT2LMHeadModel has 64 positions"):
        LMStream(model_of("GPT-2"), NUM_SLOTS, 65)


def test_zero_slots_are_rejected() -> None:
    with pytest.raises(ValueError, match="must be at least 1, got 0 and 16"):
        LMStream(model_of("GPT-2"), 0, WINDOW)


def test_a_model_without_an_output_head_is_rejected() -> None:
    with pytest.raises(ValueError, match="GPT2Model has no output head"):
        LMStream(model_of("GPT-2").transformer, NUM_SLOTS, WINDOW)


def test_reference_gives_the_log_probability_of_each_action() -> None:
    model = model_of("Llama")
    reference = ReferenceLM(model, WINDOW)
    for size in (3, 2):
        texts, actions = PROMPTS[1 : 1 + size], np.arange(size)
        log_probs = reference.log_probs(window_of(*texts), np.array([len(text) for text in texts]), actions)
        expected = torch.log_softmax(uncached(model, *texts), -1)[torch.arange(size), torch.from_numpy(actions)]
        assert log_probs.dtype == np.float64
        np.testing.assert_allclose(log_probs, expected.numpy(), atol=1e-4)


def test_an_unsupported_model_that_raises_without_a_message_runs_uncached() -> None:
    model = build("GPT-J")

    def reject_caches(_: torch.nn.Module, __: tuple[object, ...], keywords: dict[str, object]) -> None:
        if keywords.get("past_key_values") is not None:
            raise NotImplementedError

    model.register_forward_pre_hook(reject_caches, with_kwargs=True)
    with pytest.warns(UserWarning, match="GPTJForCausalLM runs uncached.*NotImplementedError"):
        stream = LMStream(model, NUM_SLOTS, WINDOW)
    assert_right(stream, *PROMPTS[:3])
