"""V(s): its formula, the fit on past episodes, checkpoints, modules of the user."""

import numpy as np
import pytest
import stable_baselines3
import torch

from fixtures import TOKENIZER, make_env, share_of_b, small_lm
from textgym import TextGenVecEnv
from textgym.constraints import BanTokens
from textgym.lm import random_lm
from textgym_agents import A2C, PPO, LMPolicy, Reinforce, collect
from textgym_agents.sb3 import EpisodeRolloutBuffer, LMActorCriticPolicy
from textgym_agents.value_function import PastEpisodes, PrefixValue, ValueFunction, ValueInputs, ValueRegression

V = 8


def random_policy(seed=0, **keywords):
    policy = LMPolicy(small_lm(), **keywords)
    for parameter in policy.value_head.parameters():
        torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(seed))
    return policy


def episodes_of(policy, num_episodes=12, **keywords):
    return collect(make_env(**keywords), policy, num_episodes, seed=0, generator=torch.Generator().manual_seed(0))


def inputs_of(text, probabilities):
    ids = torch.tensor([text])
    log_probs = torch.tensor([probabilities]).log()
    row = torch.zeros(1, dtype=torch.int64)
    return ValueInputs(ids, row, torch.tensor([len(text) - 1]), torch.zeros(1, 4), log_probs)


class LastToken(ValueFunction):
    """A value function of a user: a weight per last token."""

    def __init__(self, size=V):
        super().__init__()
        self.table = torch.nn.Embedding(size, 1)

    def forward(self, inputs):
        return self.table(inputs.ids[inputs.rows, inputs.columns])[:, 0]


def test_the_value_of_a_prefix_is_the_sum_of_its_tokens_and_of_the_likeliest_next_one():
    value = PrefixValue(4)
    value.token_values.data = torch.tensor([1.0, 2.0, 4.0, 8.0])
    value.length_values.data[:5] = torch.tensor([10.0, 20.0, 30.0, 40.0, 50.0])
    assert value(inputs_of([0, 1], [0.0, 0.0, 0.0, 1.0])).item() == pytest.approx(30 + 1 + 2 + 8)
    assert value(inputs_of([0, 1, 1, 2], [0.1, 0.1, 0.3, 0.5])).item() == pytest.approx(50 + 1 + 2 + 2 + 4 + 8 / 16)


def test_a_certain_token_does_not_change_the_value_when_it_is_written():
    value = PrefixValue(4)
    value.token_values.data = torch.tensor([1.0, 2.0, 4.0, 8.0])
    before = value(inputs_of([0], [0.0, 0.0, 1.0, 0.0]))
    assert value(inputs_of([0, 2], [0.25, 0.25, 0.25, 0.25])).item() == pytest.approx(before.item() + 1 / 256)


@pytest.mark.parametrize("value_function", ["prefix", "linear", LastToken()])
@pytest.mark.parametrize(
    "keywords", [{}, {"constraints": [BanTokens(["c"])]}, {"prompts": ["a", "abc", "ba"]}], ids=["", "masks", "prompts"]
)
def test_values_while_acting_equal_those_of_whole_episodes(value_function, keywords):
    policy = random_policy(value_function=value_function)
    episodes = episodes_of(policy, **keywords)
    assert len(episodes.values.unique()) > 10 or isinstance(value_function, LastToken)
    torch.testing.assert_close(policy.evaluate(episodes).values, episodes.values, atol=1e-4, rtol=0)


def test_the_fit_reaches_the_minimum_of_the_stated_objective():
    episodes = episodes_of(random_policy(), 40)
    past = PastEpisodes.of(episodes, torch.where(episodes.mask, episodes.returns[:, None], 0.0), 0)
    value = PrefixValue(V)
    for _ in range(100):
        value.fit(past, 1.0)
    mask, (num, longest) = episodes.mask.numpy(), episodes.mask.shape
    # The design matrix, from loops over states.
    size = V + value.KNOTS
    design = np.zeros((num, longest, size))
    for b in range(num):
        for t in range(int(episodes.num_steps[b])):
            column = int(episodes.positions[b, t])
            for token in episodes.ids[b, :column].tolist():
                design[b, t, token] += 1
            design[b, t, int(episodes.ids[b, column])] += float(episodes.log_probs[b, t].double().exp() ** 4)
            place = 2 * np.log2(column)
            design[b, t, V + int(place)] += 1 - (place - int(place))
            design[b, t, V + int(place) + 1] += place - int(place)
    weights = ((np.arange(longest) + 1) / episodes.num_steps.numpy()[:, None]) ** 4 * mask
    weights *= num / weights.sum()
    certain = torch.from_numpy((episodes.log_probs.exp().numpy() > 0.9)[:, :-1] & mask[:, 1:])
    ridge = torch.from_numpy(np.r_[np.full(V, value.RIDGE), np.full(value.KNOTS, value.LENGTH_RIDGE)])
    design, weights, returns = torch.from_numpy(design), torch.from_numpy(weights), past.returns.double()
    seen = returns[episodes.mask]
    center, radius = (seen.max() + seen.min()) / 2, (seen.max() - seen.min()) / 2
    targets = torch.where(episodes.mask, returns - center, 0.0)

    def objective(solution):
        sums = design @ solution
        matching = 2 * radius * (radius**2 + sums**2).sqrt() - 2 * sums * targets
        jumps = (sums - targets).diff(dim=1) * certain
        penalty = value.CONSISTENCY / longest * (jumps**2).sum()
        return (weights * matching).sum() + penalty + (ridge * solution**2).sum()

    minimum = torch.zeros(size, dtype=torch.float64)
    for _ in range(20):
        gradient = torch.autograd.functional.jacobian(objective, minimum)
        minimum = minimum - torch.linalg.solve(torch.autograd.functional.hessian(objective, minimum), gradient)
    solution = torch.cat([value.token_values.detach(), value.fitted_length_values])
    torch.testing.assert_close(solution.double(), minimum, atol=1e-3, rtol=0)


def test_values_stay_within_the_range_of_the_returns():
    episodes = episodes_of(random_policy(), 40)
    returns = torch.where(episodes.mask, 100 * episodes.returns[:, None] - 20, 0.0)
    policy = random_policy()
    policy.value_head = value = PrefixValue(V)
    for _ in range(5):
        value.fit(PastEpisodes.of(episodes, returns, 0), 1.0)
    values, returns = policy.evaluate(episodes).values[episodes.mask], returns[episodes.mask]
    assert returns.min() < values.min() < values.max() < returns.max()
    assert (values - returns).square().mean() < 0.9 * returns.var()


def test_returns_that_are_all_equal_give_this_value():
    episodes = episodes_of(random_policy(), 12)
    policy = random_policy()
    policy.value_head = value = PrefixValue(V)
    value.fit(PastEpisodes.of(episodes, torch.where(episodes.mask, 0.75, 0.0), 0), 1.0)
    values = policy.evaluate(episodes).values[episodes.mask]
    torch.testing.assert_close(values, torch.full_like(values, 0.75))


def test_the_calibration_follows_the_newest_returns():
    episodes = episodes_of(random_policy(), 64)
    regression = ValueRegression(value := PrefixValue(V), 1_000)
    returns = torch.where(episodes.mask, episodes.returns[:, None], 0.0)
    for _ in range(10):
        regression.update(episodes, returns, 1.0)
    for _ in range(3):
        regression.update(episodes, returns + episodes.mask, 1.0)
    policy = random_policy()
    policy.value_head = value
    error = (policy.evaluate(episodes).values.detach() - returns - 1)[episodes.mask]
    assert abs(float(error.mean())) < 0.15


@pytest.mark.parametrize(
    "algorithm", [pytest.param(PPO, marks=pytest.mark.slow), A2C, pytest.param(Reinforce, marks=pytest.mark.slow)]
)
def test_actor_critics_learn_what_the_text_so_far_is_worth(algorithm):
    agent = algorithm(small_lm(), make_env(64), num_episodes=256, kl_coef=0.0, learning_rate=0.0)
    explained = [agent.learn_from(agent.collect())["train/explained_variance_mc"] for _ in range(8)]
    assert explained[0] == pytest.approx(0.0, abs=1e-6)
    assert min(explained[4:]) > 0.2


@pytest.mark.parametrize("value_function", ["prefix", "linear"])
def test_the_value_alone_learns_if_the_whole_model_is_frozen(value_function):
    policy = LMPolicy(small_lm(), value_function=value_function)
    policy.backbone.requires_grad_(False)
    agent = PPO(policy, make_env(16), num_episodes=64)
    before = {name: tensor.clone() for name, tensor in policy.backbone.state_dict().items()}
    agent.learn_from(agent.collect())
    assert agent.collect().values.std() > 0
    for name, tensor in policy.backbone.state_dict().items():
        assert torch.equal(tensor, before[name]), name


@pytest.mark.parametrize("algorithm", [PPO, A2C, Reinforce])
def test_an_interrupted_run_has_the_same_values(tmp_path, algorithm):
    def make():
        return algorithm(small_lm(), make_env(8), num_episodes=16, value_buffer_size=40)

    straight = make().learn(1).learn(1).learn(1)
    straight.save(tmp_path / "run")
    resumed = algorithm.load(tmp_path / "run", make_env(8))
    for _ in range(3):
        assert torch.equal(straight.learn(1).episodes.values, resumed.learn(1).episodes.values)
    assert len(straight.critic.past.ids) == 40
    for first, second in zip(straight.critic.past, resumed.critic.past, strict=True):
        assert torch.equal(first, second)
    for name, tensor in straight.policy.state_dict().items():
        assert torch.equal(tensor, resumed.policy.state_dict()[name]), name


def test_a_module_of_the_user_is_trained_by_gradient_saved_and_loaded(tmp_path):
    agent = PPO(LMPolicy(small_lm(), value_function=LastToken()), make_env(8), num_episodes=16)
    before = agent.policy.value_head.table.weight.clone()
    agent.learn(1).save(tmp_path / "run")
    assert agent.critic.past is None
    assert not torch.equal(agent.policy.value_head.table.weight, before)
    loaded = PPO.load(tmp_path / "run", make_env(8), value_function=LastToken())
    assert torch.equal(loaded.policy.value_head.table.weight, agent.policy.value_head.table.weight)
    with pytest.raises(ValueError, match="A module is given itself, not by its name"):
        PPO.load(tmp_path / "run", make_env(8))


def test_stock_ppo_trains_the_value_of_the_prefix_by_gradient():
    env = TextGenVecEnv(4, scorer=share_of_b, prompts=["a"], tokenizer=TOKENIZER, max_new_tokens=4)
    model = stable_baselines3.PPO(
        LMActorCriticPolicy, env, n_steps=8, batch_size=16, rollout_buffer_class=EpisodeRolloutBuffer,
        policy_kwargs={"model": small_lm()},
    )  # fmt: skip
    model.learn(64)
    assert isinstance(model.policy.lm.value_head, PrefixValue)
    assert model.policy.lm.value_head.token_values.abs().max() > 0


def test_frozen_copies_and_adapters_keep_the_value():
    policy = random_policy(lora=2)
    episodes = episodes_of(policy)
    for copy in (policy.frozen_copy(), policy.merged()):
        torch.testing.assert_close(copy.evaluate(episodes).values, episodes.values, atol=1e-4, rtol=0)


def test_a_large_vocabulary_takes_a_number_a_token():
    policy = LMPolicy(random_lm(151_936, seed=0))
    assert sum(tensor.numel() for tensor in policy.value_head.state_dict().values()) < 1.02 * 151_936


def test_invalid_value_functions_raise():
    with pytest.raises(ValueError, match="prefix"):
        LMPolicy(small_lm(), value_function="prefx")
    with pytest.raises(TypeError, match="must be a name or a module, got 3"):
        LMPolicy(small_lm(), value_function=3)
    with pytest.raises(ValueError, match="give value_function='linear'"):
        LMPolicy(small_lm(), value_gradient=True)
