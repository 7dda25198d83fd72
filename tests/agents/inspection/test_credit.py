"""Credit of tokens by re-scoring, and what a decision depended on, by masking."""

import numpy as np
import pytest
import torch

from fixtures import TOKENIZER, make_env, small_lm, small_q_policy
from models import model_of
from textgym.constraints import MinNewTokens
from textgym.errors import ScorerError
from textgym.prompts import Sample
from textgym.users import Reply
from textgym_agents import LMPolicy, collect
from textgym_agents.inspection.credit import leave_one_out, occlusion, prefix_credit


@pytest.fixture(scope="module")
def policy():
    return LMPolicy(small_lm())


def played(env, policy, num_episodes=6, seed=1):
    return collect(env, policy, num_episodes, seed=seed, generator=torch.Generator().manual_seed(seed))


def bigrams(text):
    return sum(text.count(pair) for pair in ("ab", "bc", "ee")) + 0.1 * text.count("d")


def texts(episodes, b):
    start, end = int(episodes.prompt_lengths[b]), int(episodes.text_lengths[b])
    return episodes.ids[b, start:end].tolist()


# Credit ----------------------------------------------------------------------------------------------------------


def test_leaving_a_token_out_is_scoring_the_text_without_it(policy):
    episodes = played(make_env(4, scorer=bigrams), policy)
    credit = leave_one_out(bigrams, episodes, TOKENIZER)
    for b in range(len(episodes)):
        ids = texts(episodes, b)
        for t in range(int(episodes.num_steps[b])):
            without = bigrams(TOKENIZER.decode(ids[:t] + ids[t + 1 :]))
            assert np.isclose(credit[b, t], bigrams(TOKENIZER.decode(ids)) - without)
    assert (credit[~episodes.mask.numpy()] == 0).all()
    assert (credit != 0).any()


def test_credit_of_prefixes_adds_up_to_the_score(policy):
    episodes = played(make_env(4, scorer=bigrams), policy)
    credit = prefix_credit(bigrams, episodes, TOKENIZER)
    assert np.allclose(credit.sum(axis=1), episodes.returns)
    for b in range(len(episodes)):
        ids = texts(episodes, b)
        for t in range(int(episodes.num_steps[b])):
            after, before = (bigrams(TOKENIZER.decode(ids[:n])) for n in (t + 1, t))
            assert np.isclose(credit[b, t], after - before)


def test_scorers_see_the_samples_and_which_texts_are_finished(policy):
    seen = []

    def scorer(prompts, completions, answer, **columns):
        seen.extend(zip(prompts, answer, strict=True))
        return [float(text.count(letter)) for text, letter in zip(completions, answer, strict=True)]

    episodes = played(make_env(4), policy, 3)
    samples = [Sample("a", (), {"answer": letter}) for letter in "bcd"]
    credit = leave_one_out(scorer, episodes, TOKENIZER, samples=samples)
    assert set(seen) == {("a", "b"), ("a", "c"), ("a", "d")}
    for b, letter in enumerate("bcd"):
        is_letter = np.array([TOKENIZER.decode([i]) == letter for i in texts(episodes, b)])
        assert credit[b, : len(is_letter)].tolist() == is_letter.tolist()
    with pytest.raises(ValueError, match="2 samples for 3 episodes"):
        leave_one_out(scorer, episodes, TOKENIZER, samples=samples[:2])


def test_the_replies_of_a_user_count_with_the_turn_that_they_follow(policy):
    env = make_env(
        4, user=lambda messages: Reply("g"), max_turns=3, max_reply_tokens=4, reply_format="{reply}",
        scorer=lambda text: text.count("g") + 2.0 * text.count("b"),
    )  # fmt: skip
    episodes = played(env, policy, 8)
    assert any(len(info["turns"]) > 2 for info in episodes.infos)

    def score(text):
        return text.count("g") + 2.0 * text.count("b")

    assert np.allclose(prefix_credit(score, episodes, TOKENIZER).sum(axis=1), episodes.returns)
    credit, end = leave_one_out(score, episodes, TOKENIZER), TOKENIZER.eos_token_id
    for b, t in episodes.mask.nonzero().tolist():
        token = int(episodes.ids[b, episodes.positions[b, t]])
        assert token == end or credit[b, t] == score(TOKENIZER.decode([token]))


def test_agent_turns_of_a_prefix_are_those_that_it_holds(policy):
    env = make_env(
        4, user=lambda messages: Reply("g"), max_turns=3, max_reply_tokens=4, reply_format="{reply}",
        scorer=lambda text: 0.0,
    )  # fmt: skip
    episodes = played(env, policy, 8)

    class Turns:
        """Counts the user's messages among the turns."""

        def __call__(self, batch):
            return [float(sum(turn["role"] == "user" for turn in turns)) for turns in batch.turns]

    from textgym.scorers import Scorer

    class NumReplies(Scorer):
        """Number of replies."""

        def __call__(self, batch):
            return Turns()(batch)

    credit = prefix_credit(NumReplies(), episodes, TOKENIZER)
    replies = [sum(turn["role"] == "user" for turn in info["turns"]) for info in episodes.infos]
    assert credit.sum(axis=1).tolist() == replies
    assert set(np.unique(credit)) <= {0.0, 1.0}


def test_a_scorer_that_fails_raises(policy):
    def scorer(text):
        if not text:
            raise RuntimeError("an empty text")
        return 0.0

    episodes = played(make_env(4), policy)
    with pytest.raises(ScorerError, match="raised RuntimeError: an empty text"):
        prefix_credit(scorer, episodes, TOKENIZER)


# Occlusion -------------------------------------------------------------------------------------------------------


def manual(model, ids, column, action, valid=None):
    """Return log pi of an action with one column masked by an explicit (L, L) mask."""
    size = len(ids)
    allowed = torch.ones(size, size).tril().bool()
    if column is not None:
        allowed[:, column] = False
        allowed[column, column] = column < size - 1 or size == 1  # nobody reads this row, unless it is the last
    mask = torch.zeros(1, 1, size, size).masked_fill(~allowed, torch.finfo(torch.float32).min)
    with torch.no_grad():
        logits = model(input_ids=torch.tensor(ids)[None], attention_mask=mask, use_cache=False).logits[0, -1]
    if valid is not None:
        logits = logits.masked_fill(~torch.tensor(valid), -torch.inf)
    return float(torch.log_softmax(logits, 0)[action])


@pytest.mark.parametrize("name", ["GPT-2", "Llama", "GPT-NeoX"])
def test_occlusion_is_a_forward_with_an_explicit_mask(name):
    policy = LMPolicy(model_of(name))
    ids = torch.tensor([[3, 5, 7, 9, 11, 2, 4], [6, 8, 10, 12, 1, 0, 0]])
    episodes = as_episodes(ids, prompt_lengths=[2, 3], num_steps=[5, 2])
    values = occlusion(policy, episodes)
    assert values.shape == (2, 5, 7)
    for b, t in episodes.mask.nonzero().tolist():
        length = int(episodes.positions[b, t])
        text, action = ids[b, :length].tolist(), int(ids[b, length])
        whole = manual(policy.model, text, None, action)
        expected = [whole - manual(policy.model, text, i, action) for i in range(length)]
        assert np.allclose(values[b, t, :length], expected, atol=1e-4)
        assert np.isnan(values[b, t, length:]).all()
    assert np.isnan(values[1, 2:]).all()
    assert np.nanmax(np.abs(values)) > 0.01


def as_episodes(ids, prompt_lengths, num_steps):
    from textgym_agents import Episodes

    size, width = len(ids), max(num_steps)
    zeros = torch.zeros(size, width)
    return Episodes(
        ids=ids, prompt_lengths=torch.tensor(prompt_lengths), num_steps=torch.tensor(num_steps), rewards=zeros,
        log_probs=zeros, values=zeros, truncated=torch.zeros(size, dtype=torch.bool), action_masks=None,
        infos=[{}] * size,
    )  # fmt: skip


def test_occlusion_of_chosen_positions_and_valid_tokens(policy):
    env = make_env(4, constraints=[MinNewTokens(2)])
    episodes = played(env, policy, 4)
    values = occlusion(policy, episodes, [(1, 0), (2, 1)])
    assert np.argwhere(np.isfinite(values).any(axis=2)).tolist() == [[1, 0], [2, 1]]
    length = int(episodes.positions[1, 0])
    valid = np.unpackbits(episodes.action_masks[1, 0], count=8).view(np.bool_)
    assert not valid.all()
    text, action = episodes.ids[1, :length].tolist(), int(episodes.ids[1, length])
    whole = manual(policy.model, text, None, action, valid)
    expected = [whole - manual(policy.model, text, i, action, valid) for i in range(length)]
    assert np.allclose(values[1, 0, :length], expected, atol=1e-4)


def test_a_model_that_ignores_the_mask_raises(policy, monkeypatch):
    episodes = played(make_env(4), policy, 2)
    forward = policy.model.forward
    monkeypatch.setattr(policy.model, "forward", lambda attention_mask, **keywords: forward(**keywords))
    with pytest.raises(ValueError, match="GPT2LMHeadModel ignores the attention mask"):
        occlusion(policy, episodes)


def test_wrong_arguments_of_occlusion_raise(policy):
    episodes = played(make_env(4), policy, 2)
    with pytest.raises(TypeError, match="needs an LMPolicy, got QPolicy"):
        occlusion(small_q_policy(), episodes)
    for position in ((2, 0), (0, 6), (-1, 0)):
        with pytest.raises(ValueError, match=r"is not an episode and a step of 2 episodes"):
            occlusion(policy, episodes, [position])
