"""Bucketed whole-sequence forwards with shared prompts equal one forward per state."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures import slow_but
from models import build, fed_tokens, model_of
from textgym.lm import WholeSequenceForward, random_lm
from textgym.lm.forward import bucket_by_length

MODELS = ["GPT-2", "Llama", "GPT-NeoX", "Gemma 2", "Mistral", "GPT-OSS", "OPT", "GPT-J", "BLOOM", "Mamba"]
SEQUENCES = st.lists(
    st.tuples(st.integers(0, 2), st.lists(st.integers(0, 6), min_size=1, max_size=8)), min_size=1, max_size=6
)
PROMPTS = [[1], [2, 3, 1, 4], [5, 0, 0, 2, 6, 1]]


def batch_of(sequences):
    """Return ids, rows and columns of all states with an action, and prompt lengths."""
    whole = [PROMPTS[number] + completion for number, completion in sequences]
    ids = torch.zeros(len(whole), max(map(len, whole)), dtype=torch.int64)
    states = []
    for b, (text, (number, _)) in enumerate(zip(whole, sequences, strict=True)):
        ids[b, : len(text)] = torch.tensor(text)
        states += [(b, column) for column in range(len(PROMPTS[number]) - 1, len(text) - 1)]
    rows, columns = torch.tensor(states).T
    return ids, rows, columns, torch.tensor([len(PROMPTS[number]) for number, _ in sequences])


def one_by_one(model, ids, rows, columns):
    return torch.stack(
        [model(ids[b, : c + 1][None]).logits[0, -1] for b, c in zip(rows.tolist(), columns.tolist(), strict=True)]
    )


@pytest.mark.parametrize("name", slow_but(MODELS, "Llama", "Mistral", "BLOOM", "Mamba"))
@pytest.mark.parametrize("forward_cost", [0, 5, 1000])
@settings(max_examples=10)
@given(sequences=SEQUENCES)
def test_logits_are_those_of_one_forward_per_state(name, forward_cost, sequences):
    model = model_of(name)
    forward = WholeSequenceForward(model)
    forward._forward_cost = forward_cost
    ids, rows, columns, prompt_lengths = batch_of(sequences)
    with torch.no_grad():
        logits, hidden = forward(ids, rows, columns, prompt_lengths)
        torch.testing.assert_close(logits, one_by_one(model, ids, rows, columns), atol=1e-4, rtol=1e-4)
    assert hidden.shape[0] == len(rows)


@pytest.mark.parametrize("name", ["GPT-2", "Llama", "Mistral"])
def test_gradients_are_those_of_one_forward_per_state(name):
    model = build(name)
    forward = WholeSequenceForward(model)
    forward._forward_cost = 1
    ids, rows, columns, prompt_lengths = batch_of([(2, [1, 2]), (2, [3, 4, 5, 6]), (1, [1]), (2, [0] * 8), (1, [2, 2])])
    logits, _ = forward(ids, rows, columns, prompt_lengths)
    weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(0))
    (logits * weights).sum().backward()
    shared = {parameter: p.grad.clone() for parameter, p in model.named_parameters()}
    model.zero_grad()
    (one_by_one(model, ids, rows, columns) * weights).sum().backward()
    for parameter, p in model.named_parameters():
        torch.testing.assert_close(shared[parameter], p.grad, atol=1e-5, rtol=1e-4)


def test_a_long_prompt_of_many_sequences_is_fed_once():
    model = build("Llama")
    forward = WholeSequenceForward(model)
    forward._forward_cost = 4
    ids, rows, columns, prompt_lengths = batch_of([(2, [1, 2]), (2, [3, 4]), (2, [5, 6])])
    forward(ids, rows, columns, prompt_lengths)  # checks once whether the model supports it
    with fed_tokens(model) as fed:
        forward(ids, rows, columns, prompt_lengths)
    assert fed == [5, 3 * 2]  # five prompt tokens; then the last one of the prompt and the first of each completion


def test_prompts_are_shared_in_the_smallest_vocabulary_too():
    forward = WholeSequenceForward(random_lm(2))
    forward._forward_cost = 1
    ids = torch.tensor([[0, 1, 1, 0, 1, 1, 0], [0, 1, 1, 0, 1, 0, 0]])
    rows, columns = torch.tensor([0, 1]), torch.tensor([6, 6])
    with torch.no_grad():
        logits, _ = forward(ids, rows, columns, torch.tensor([5, 5]))
        torch.testing.assert_close(logits, one_by_one(forward.model, ids, rows, columns))
    assert forward._can_share_prompts


def test_a_model_that_cannot_continue_from_a_cache_feeds_every_prompt():
    forward = WholeSequenceForward(model_of("Mamba"))
    forward._forward_cost = 0
    ids, rows, columns, prompt_lengths = batch_of([(2, [1, 2]), (2, [3, 4])])
    with torch.no_grad():
        forward(ids, rows, columns, prompt_lengths)
    assert forward._can_share_prompts is False


@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=9),
    st.integers(0, 100),
)
def test_no_other_division_into_buckets_costs_less(lengths, cost):
    lengths = np.array(lengths)

    def cost_of(buckets):
        return sum(len(bucket) * int(lengths[bucket].max()) + cost for bucket in buckets)

    buckets = bucket_by_length(lengths, cost)
    assert sorted(np.concatenate(buckets).tolist()) == list(range(len(lengths)))
    order = np.argsort(lengths, kind="stable")
    for cuts in range(2 ** (len(lengths) - 1)):
        where = [i + 1 for i in range(len(lengths) - 1) if cuts >> i & 1]
        assert cost_of(buckets) <= cost_of(np.split(order, where))
