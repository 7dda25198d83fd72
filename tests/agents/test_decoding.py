"""Decoders follow their rule and do not change the environment."""

import numpy as np
import pytest
import torch
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecMonitor

from fixtures import TOKENIZER, make_env, quick_but, share_of_b, small_lm
from textgym import TextGenVecEnv
from textgym.constraints import BanTokens
from textgym_agents import LMPolicy, collect
from textgym_agents.decoding import MCTS, BeamSearch, BestOfN, Greedy, MCTSConfig, RandomPolicy, Sampling

MODES = ("SameStep", "NextStep", "Disabled")
MODEL = small_lm()
SMALL_SEARCH = MCTSConfig(num_simulations=8, top_k=4)
DECODERS = {
    "random": lambda policy, env: RandomPolicy(8),
    "greedy": lambda policy, env: Greedy(policy),
    "sampling": lambda policy, env: Sampling(policy, temperature=0.7, top_k=4, top_p=0.9),
    "beam": lambda policy, env: BeamSearch(policy, env, 3),
    "best of n": lambda policy, env: BestOfN(policy, env, 4),
    "mcts": lambda policy, env: MCTS(policy, env, SMALL_SEARCH),
    "mcts by value": lambda policy, env: MCTS(policy, env, MCTSConfig(num_simulations=8, evaluation="value")),
}
ALL = quick_but(DECODERS, "mcts")
"""A search with rollouts takes as long as all the others; one that asks the value head is in the default run."""
PLANNERS = ("beam", "best of n", "mcts", "mcts by value")


@pytest.fixture(scope="module")
def policy():
    return LMPolicy(small_lm())


def collected(env, decoder, num_episodes=32, **keywords):
    return collect(env, decoder, num_episodes, seed=3, generator=torch.Generator().manual_seed(0), **keywords)


def completions(episodes):
    return [info["completion_ids"] for info in episodes.infos]


def generated(prompt_ids, **keywords):
    """Return the completion of transformers' generate, up to EOS."""
    settings = {"do_sample": False, "max_new_tokens": 6, "pad_token_id": 7, "eos_token_id": 7}
    text = MODEL.generate(torch.tensor([prompt_ids]), **settings | keywords)[0, len(prompt_ids) :].tolist()
    return text[: text.index(7) + 1] if 7 in text else text


def log_prob_of(prompt_ids, completion_ids):
    ids = torch.tensor([[*prompt_ids, *completion_ids]])
    log_probs = MODEL(ids).logits[0, len(prompt_ids) - 1 : -1].log_softmax(-1)
    return log_probs.gather(1, torch.tensor(completion_ids)[:, None]).sum().item()


# Token by token --------------------------------------------------------------------------------------------------


def test_random_policy_is_uniform_over_valid_tokens():
    masks = np.repeat(np.array([[True] * 4 + [False] * 4]), 4000, axis=0)
    output = RandomPolicy(8).act(np.zeros((4000, 1), dtype=np.int64), masks)
    counts = np.bincount(output.actions, minlength=8)
    assert (counts[:4] > 900).all()
    assert (counts[4:] == 0).all()
    assert np.allclose(output.log_probs, np.log(1 / 4))


def test_greedy_agrees_with_generate(policy):
    episodes = collected(make_env(), Greedy(policy), 8)
    for b, completion in enumerate(completions(episodes)):
        assert completion == generated(episodes.ids[b, : episodes.prompt_lengths[b]].tolist())


def test_top_k_and_top_p_restrict_the_tokens(policy):
    ids = np.array([[2, 0, 1, 8, 8]] * 500)
    logits = policy.logits_and_values(ids)[0][0]
    order = logits.argsort(descending=True)
    assert set(Sampling(policy, top_k=3).act(ids).actions.tolist()) == set(order[:3].tolist())
    nucleus = int((logits.softmax(-1)[order].cumsum(0) < 0.5).sum()) + 1
    assert set(Sampling(policy, top_p=0.5).act(ids).actions.tolist()) == set(order[:nucleus].tolist())


def test_sampling_returns_the_log_probabilities_of_the_warped_distribution(policy):
    ids = np.array([[2, 0, 1, 8, 8]])
    output = Sampling(policy, temperature=0.5).act(ids)
    expected = (policy.logits_and_values(ids)[0] / 0.5).log_softmax(-1)[0, output.actions[0]]
    assert output.log_probs[0] == pytest.approx(expected.item(), abs=1e-6)
    assert Sampling(policy, top_k=1).act(ids).log_probs.tolist() == [0.0]


def test_a_low_temperature_is_nearly_greedy(policy):
    cold = collected(make_env(), Sampling(policy, temperature=1e-3))
    assert completions(cold) == completions(collected(make_env(), Greedy(policy)))


# Looking ahead ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_beams", [1, 2, 4])
def test_beam_search_agrees_with_generate(policy, num_beams):
    env = make_env(time_limit="truncated")
    episodes = collected(env, BeamSearch(policy, env, num_beams), 8)
    for b, completion in enumerate(completions(episodes)):
        prompt = episodes.ids[b, : episodes.prompt_lengths[b]].tolist()
        theirs = generated(prompt, num_beams=num_beams, length_penalty=0.0)
        assert completion == theirs
        assert episodes.log_probs[b].sum().item() == pytest.approx(log_prob_of(prompt, theirs), abs=1e-4)


def test_a_beam_over_all_prefixes_finds_the_most_likely_completion(policy):
    env = make_env(max_new_tokens=2)
    episodes = collected(env, BeamSearch(policy, env, 64), 8)
    everything = [[7], *([a, b] for a in range(7) for b in range(8))]
    for b, completion in enumerate(completions(episodes)):
        prompt = episodes.ids[b, : episodes.prompt_lengths[b]].tolist()
        assert completion == max(everything, key=lambda ids: log_prob_of(prompt, ids))


def test_beam_search_stops_at_the_stop_strings_of_the_environment(policy):
    env = make_env(stop=["e"])
    texts = [info["completion"] for info in collected(env, BeamSearch(policy, env), 16).infos]
    assert all("e" not in text[:-1] for text in texts)


def test_best_of_n_scores_more_than_twice_as_much_as_sampling(policy):
    env = make_env()
    sampled = collected(env, policy, 64).returns.mean().item()
    assert collected(env, BestOfN(policy, env, 16), 64).returns.mean().item() > 2 * sampled


def test_best_of_one_is_sampling(policy):
    env = make_env()
    assert completions(collected(env, BestOfN(policy, env, 1), 8)) == completions(collected(env, policy, 8))


def test_best_of_n_compares_returns_not_last_rewards(policy):
    env = make_env(reward="potential", scorer=lambda completion: completion.count("b") - completion.count("d"))
    assert collected(env, BestOfN(policy, env, 16), 32).returns.mean().item() > 0.5


def test_best_of_n_accepts_any_policy(policy):
    env = make_env()
    assert collected(env, BestOfN(RandomPolicy(8), env, 16)).returns.mean().item() > 0.2


@pytest.mark.parametrize("evaluation", ["rollout", "value"])
def test_mcts_scores_more_than_greedy(policy, evaluation):
    """With two tokens the search reaches the ends of the texts, so an untrained value head suffices."""
    env = make_env(max_new_tokens=2, scorer=lambda completion: completion.count("b") / 2)
    config = MCTSConfig(num_simulations=80, top_k=8, evaluation=evaluation)
    searched = collected(env, MCTS(policy, env, config), 8, deterministic=True)
    assert searched.returns.mean().item() == 1.0
    assert collected(env, Greedy(policy), 8).returns.mean().item() < 0.8


@pytest.mark.slow
def test_mcts_with_rollouts_scores_more_than_greedy_on_longer_texts(policy):
    env = make_env()
    searched = collected(env, MCTS(policy, env), 8, deterministic=True).returns.mean().item()
    assert searched > collected(env, Greedy(policy), 8).returns.mean().item() + 0.2


def test_mcts_draws_in_proportion_to_visits(policy):
    env = make_env()
    observations, _ = env.reset(seed=0)
    decoder = MCTS(policy, env, SMALL_SEARCH)
    output = decoder.act(observations)
    shares = np.exp(output.log_probs) * SMALL_SEARCH.num_simulations
    assert np.allclose(shares, shares.round(), atol=1e-4)
    assert (shares.round() >= 1).all()


def test_the_root_of_a_tree_counts_every_simulation(policy):
    env = make_env()
    env.reset(seed=0)
    trees = MCTS(policy, env, SMALL_SEARCH).search(np.ones(8, dtype=np.bool_), torch.Generator().manual_seed(0))
    assert (trees.visits[:, 0].sum(axis=1) == 8).all()
    children = trees.children[:, 0]
    rows = np.arange(8)[:, None]
    inside = np.where(children >= 0, trees.visits[rows, children].sum(axis=2) + ~trees.ended[rows, children], 0)
    ended = (children >= 0) & trees.ended[rows, children]
    assert (inside == trees.visits[:, 0])[~ended].all()


# All of them -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ALL)
def test_every_decoder_runs_in_collect(policy, name, mode):
    env = make_env(mode=mode)
    episodes = collected(env, DECODERS[name](policy, env), 20)
    assert len(episodes) == 20
    for b, info in enumerate(episodes.infos):
        start, steps = int(episodes.prompt_lengths[b]), int(episodes.num_steps[b])
        assert episodes.ids[b, start : start + steps].tolist() == info["completion_ids"]
        assert (episodes.log_probs[b, :steps] <= 0).all()


@pytest.mark.parametrize("name", ALL)
def test_every_decoder_respects_masks(policy, name):
    env = make_env(constraints=[BanTokens(["b", "c", "e"])])
    episodes = collected(env, DECODERS[name](policy, env), 20)
    assert not set("bce") & set("".join(info["completion"] for info in episodes.infos))


@pytest.mark.parametrize("name", ALL)
def test_the_same_seed_gives_the_same_texts(policy, name):
    first, second = make_env(), make_env()
    texts = [completions(collected(env, DECODERS[name](policy, env), 16)) for env in (first, second)]
    assert texts[0] == texts[1]


@pytest.mark.parametrize("name", PLANNERS)
@pytest.mark.parametrize("keywords", [{}, {"group_size": 3}, {"kl_penalty": 0.1, "reference": small_lm(1)}])
def test_looking_ahead_does_not_change_the_environment(policy, name, keywords):
    env = make_env(**keywords)
    observations, _ = env.reset(seed=0)
    before = repr(env.unwrapped.get_state())
    DECODERS[name](policy, env).act(observations)
    assert repr(env.unwrapped.get_state()) == before
    assert (env.unwrapped.core.ids == observations).all()


def test_looking_ahead_draws_no_prompts(policy):
    """Prompts that a copy drew from an iterator would be lost."""
    texts = [f"{a}{b}" for a in "abcdefg" for b in "abcdefg"]
    env = make_env(4, prompts=iter(texts))
    episodes = collected(env, BestOfN(policy, env), 12)
    assert [info["prompt"] for info in episodes.infos] == texts[:12]


@pytest.mark.parametrize("name", PLANNERS)
def test_an_observation_of_another_environment_raises(policy, name):
    env, other = make_env(), make_env(prompts=["gag"])
    env.reset(seed=0)
    observations, _ = other.reset(seed=0)
    with pytest.raises(ValueError, match="not the current state of the environment"):
        DECODERS[name](policy, env).act(observations)


@pytest.mark.parametrize("name", PLANNERS)
def test_another_vocabulary_and_another_family_raise(policy, name):
    with pytest.raises(ValueError, match="the environment has 257 actions, the model a vocabulary of 8"):
        DECODERS[name](policy, make_env(tokenizer="byte"))
    with pytest.raises(TypeError, match="needs an environment of the TextGen family, got int"):
        DECODERS[name](policy, 3)


def test_a_text_that_deviates_from_its_plan_is_planned_anew(policy):
    env = make_env(2)
    observations, _ = env.reset(seed=0)
    planner = BestOfN(policy, env, 8)
    planned = planner.act(observations).actions
    observations, *_ = env.step((planned + 1) % 7)
    planner.act(observations)
    lengths = (observations != 8).sum(axis=1)
    for text, length, plan in zip(observations, lengths, planner.plans.ids, strict=True):
        assert (plan[:length] == text[:length]).all()


def test_a_new_episode_of_the_same_prompt_is_planned_anew(policy):
    env = make_env(2, prompts=["a"])
    texts = {info["completion"] for info in collected(env, BestOfN(policy, env, 1), 32).infos}
    assert len(texts) > 10


@pytest.mark.parametrize("name", ["beam", "mcts by value"])
def test_a_diverged_model_raises(name):
    env, policy = make_env(), LMPolicy(small_lm())
    decoder = DECODERS[name](policy, env)
    collected(env, decoder, 8)
    with torch.no_grad():
        policy.model.lm_head.weight.fill_(torch.nan)
    with pytest.raises(FloatingPointError, match=r"logits.* are NaN"):
        collected(env, decoder, 8)


@pytest.mark.parametrize("name", ALL)
def test_sb3_evaluates_every_decoder(policy, name):
    env = TextGenVecEnv(
        4, tokenizer=TOKENIZER, prompts=["a", "cab"], scorer=share_of_b, max_new_tokens=6, max_prompt_tokens=4
    )
    mean, _ = evaluate_policy(DECODERS[name](policy, env), VecMonitor(env), n_eval_episodes=8)
    assert 0 <= mean <= 1


def test_predict_accepts_a_single_text(policy):
    actions, state = Greedy(policy).predict(np.array([2, 0, 1, 8, 8]), state="kept")
    assert actions.shape == ()
    assert state == "kept"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda policy, env: Sampling(policy, temperature=0.0), "temperature"),
        (lambda policy, env: Sampling(policy, top_k=0), "top_k"),
        (lambda policy, env: Sampling(policy, top_p=1.5), "top_p"),
        (lambda policy, env: BestOfN(policy, env, 0), "n must be at least 1, got 0"),
        (lambda policy, env: BeamSearch(policy, env, 0), "num_beams must be at least 1, got 0"),
        (lambda policy, env: RandomPolicy(0), "vocab_size must be at least 1, got 0"),
        (lambda policy, env: MCTSConfig(num_simulations=0), "num_simulations must be at least 1, got 0"),
        (lambda policy, env: MCTSConfig(evaluation="rollouts"), "did you mean 'rollout'"),
    ],
)
def test_settings_out_of_range_raise(policy, make, message):
    with pytest.raises(ValueError, match=message):
        make(policy, make_env())
