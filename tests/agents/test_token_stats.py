"""Entropy, rank, mask size and alternatives that a rollout records, against the whole distribution."""

import numpy as np
import pytest
import torch

from fixtures import TOKENIZER, make_env, small_lm
from textgym.constraints import BanTokens
from textgym.prompts import Sample
from textgym.tokenizers import CharTokenizer
from textgym_agents import DQN, LMPolicy, QPolicy, Reinforce, collect
from textgym_agents.decoding import BestOfN, Greedy, RandomPolicy, Sampling
from textgym_agents.inspection import TokenTable
from textgym_agents.policy import ActionOutput

BATCH = np.array([[0, 1, 2, 8, 8], [3, 8, 8, 8, 8], [6, 5, 4, 3, 8]])
MASKS = np.ones((3, 8), dtype=bool)
MASKS[1, 2:] = False


@pytest.fixture(scope="module")
def policy():
    return LMPolicy(small_lm())


def generator():
    return torch.Generator().manual_seed(0)


def sampled(env, policy, num_episodes=12, **keywords):
    return collect(env, policy, num_episodes, seed=3, generator=generator(), **keywords)


def q_policy():
    torch.manual_seed(1)
    policy = QPolicy(small_lm(), q_from="logits")
    policy.temperature, policy.epsilon = 0.5, 0.1
    return policy


@pytest.mark.parametrize("masks", [None, MASKS], ids=["all valid", "masked"])
@pytest.mark.parametrize(
    "make", [lambda lm: lm, lambda lm: q_policy(), lambda lm: Sampling(lm, temperature=0.5, top_k=6)],
    ids=["LMPolicy", "QPolicy", "Sampling"],
)  # fmt: skip
def test_statistics_are_those_of_the_distribution_that_samples(policy, make, masks):
    acting = make(policy)
    output = acting.act(BATCH, masks, generator=generator(), num_alternatives=8)
    stats = output.stats
    probabilities = np.zeros((3, 8))
    for i, (ids, log_probs) in enumerate(zip(stats.alternative_ids, stats.alternative_log_probs, strict=True)):
        valid = ids >= 0
        assert (np.diff(log_probs[valid]) <= 0).all()
        assert (log_probs[~valid] == -np.inf).all()
        probabilities[i, ids[valid]] = np.exp(log_probs[valid])
    assert probabilities.sum(axis=1) == pytest.approx(np.ones(3), abs=1e-5)
    if masks is not None:
        assert (probabilities[~masks] == 0).all()
    chosen = probabilities[np.arange(3), output.actions]
    assert np.log(chosen) == pytest.approx(output.log_probs, abs=1e-5)
    assert (stats.ranks == 1 + (probabilities > chosen[:, None] + 1e-7).sum(axis=1)).all()
    with np.errstate(divide="ignore", invalid="ignore"):
        entropies = -np.nansum(probabilities * np.log(probabilities), axis=1)
    assert stats.entropies == pytest.approx(entropies, abs=1e-5)


def test_the_entropy_of_a_certain_token_is_zero_and_large_logits_lose_no_digits():
    from textgym_agents.policy import choose

    logits = torch.tensor([[-90.0, -190.0, -300.0], [1000.0, 1000.0, 900.0]])
    _, _, stats = choose(logits, generator=generator(), num_alternatives=0)
    assert stats.entropies == pytest.approx([0.0, np.log(2)], abs=1e-6)
    assert stats.alternative_ids.shape == (2, 0)


@pytest.mark.parametrize("keywords", [{}, {"constraints": [BanTokens(["c"])]}], ids=["all valid", "masked"])
def test_recording_changes_no_episode(policy, keywords):
    plain = sampled(make_env(**keywords), policy)
    recorded = sampled(make_env(**keywords), policy, num_alternatives=5)
    assert torch.equal(plain.ids, recorded.ids)
    assert torch.equal(plain.log_probs, recorded.log_probs)
    assert plain.stats is None
    stats = recorded.stats
    assert stats.mask_sizes[recorded.mask].unique().tolist() == [8 - len(keywords)]
    assert stats.alternative_ids.shape == (*recorded.rewards.shape, 5)
    assert all((column[~recorded.mask] == 0).all() for column in stats)
    first = (stats.ranks == 1) & recorded.mask
    assert torch.equal(stats.alternative_ids[first][:, 0], recorded.ids.gather(1, recorded.positions)[first])
    part = recorded[2:4]
    assert torch.equal(part.stats.entropies, stats.entropies[2:4])
    assert part.starts == recorded.starts[2:4]


def test_an_agent_records_what_it_is_told(policy):
    for agent in (Reinforce(LMPolicy(small_lm()), make_env(), num_episodes=8), DQN(q_policy(), make_env())):
        assert agent.collect().stats is None
        agent.num_alternatives = 2
        assert agent.collect().stats.alternative_ids.shape[2] == 2


def test_decoders_record_where_they_sample_from_a_distribution(policy):
    stats = sampled(make_env(), RandomPolicy(8), num_alternatives=0).stats
    assert stats.entropies[stats.ranks > 0].numpy() == pytest.approx(np.log(8), abs=1e-5)
    greedy = sampled(make_env(), Greedy(policy), num_alternatives=1)
    assert (greedy.stats.ranks[greedy.mask] == 1).all()


@pytest.mark.parametrize("wrap", [lambda decoder: decoder, Greedy], ids=["BestOfN", "Greedy of it"])
def test_a_policy_without_a_distribution_is_refused(policy, wrap):
    env = make_env()
    with pytest.raises(ValueError, match=r"num_alternatives=3 records .* BestOfN\.act does not give; leave it None"):
        sampled(env, wrap(BestOfN(policy, env, 2)), 4, num_alternatives=3)


def test_a_policy_that_swallows_the_keyword_is_refused(policy):
    class Mute:
        vocab_size = 8

        def act(self, ids, *args, **keywords):
            return ActionOutput(np.zeros(len(ids), dtype=np.int64), *np.zeros((2, len(ids)), dtype=np.float32))

    with pytest.raises(ValueError, match=r"Mute\.act does not give"):
        sampled(make_env(), Mute(), 4, num_alternatives=0)
    assert len(sampled(make_env(), Mute(), 4)) == 4


@pytest.mark.parametrize(("number", "error"), [(-1, ValueError), (2.5, TypeError), (True, TypeError)])
def test_the_number_of_alternatives_is_checked(policy, number, error):
    with pytest.raises(error, match="num_alternatives must be"):
        sampled(make_env(), policy, 4, num_alternatives=number)


def test_starts_hold_the_sample_and_the_prefix(policy):
    samples = [Sample("a", ("b",), {"answer": [1, "x"]}), Sample("cab")]
    env = make_env(4, prompts=samples)
    starts = collect(env, policy, 6, seed=0, options={"prefix_ids": [1, 2]}, generator=generator()).starts
    assert {start.sample.prompt for start in starts} == {"a", "cab"}
    assert all(start.sample in samples and start.rng_state is None for start in starts)
    assert [start.prefix_length for start in starts] == [2, 2, 2, 2, 0, 0]


def test_the_table_has_the_recorded_columns(policy):
    episodes = sampled(make_env(), policy, num_alternatives=3)
    table = TokenTable.of(episodes, TOKENIZER)
    assert table.by_step("entropy")[episodes.mask] == pytest.approx(episodes.stats.entropies[episodes.mask].numpy())
    assert (table.columns["rank"] >= 1).all()
    assert set(np.unique(table.columns["top_ids"])) <= table.texts.keys()
    assert table.columns["top_log_probs"].shape == (len(table), 3)
    assert "rank" not in TokenTable.of(sampled(make_env(), policy), TOKENIZER).columns
    with pytest.raises(ValueError, match="another vocabulary"):
        TokenTable.of(episodes, CharTokenizer("gfedcba"))


def test_components_of_a_terminal_score_are_on_the_last_action(policy):
    scorer = {"length_band": 0.5, "repetition": -1.0}
    episodes = sampled(make_env(scorer=scorer), policy)
    table = TokenTable.of(episodes, TOKENIZER)
    for name in scorer:
        column = table.by_step(f"reward/{name}")
        for b, (info, size) in enumerate(zip(episodes.infos, episodes.num_steps.tolist(), strict=True)):
            assert column[b, size - 1] == pytest.approx(info["scores"][name])
            assert (column[b, : size - 1] == 0).all()
    dense = TokenTable.of(sampled(make_env(scorer=scorer, reward="potential"), policy), TOKENIZER)
    assert not any(name.startswith("reward/") for name in dense.columns)
