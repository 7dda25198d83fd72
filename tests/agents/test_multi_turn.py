"""Agents in dialogues: the tokens of a simulated user are context, never actions."""

import json
from typing import NamedTuple

import gymnasium as gym
import numpy as np
import pytest
import stable_baselines3 as sb3
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.callbacks import BaseCallback
from torch import nn

import textgym
from fixtures import EPSILON_GREEDY, ONE_SEED_AND_TWO_SLOW, TOKENIZER, slow_but, small_lm, textbook_q_policy
from textgym import TextGenVecEnv
from textgym.constraints import BanTokens
from textgym.lm import random_lm
from textgym.tokenizers import ByteTokenizer, CharTokenizer
from textgym.users import Reply
from textgym_agents import (
    A2C,
    DQN,
    GRPO,
    ILQL,
    PPO,
    A2CConfig,
    BehaviourCloning,
    BehaviourCloningConfig,
    DQNConfig,
    EpisodeRecorder,
    Episodes,
    ExpertIteration,
    ExpertIterationConfig,
    GRPOConfig,
    ILQLConfig,
    LMPolicy,
    OfflineSoftQ,
    OfflineSoftQConfig,
    PPOConfig,
    QPolicy,
    Reinforce,
    ReinforceConfig,
    SoftQ,
    SoftQConfig,
    collect,
    read_episodes,
)
from textgym_agents.decoding import MCTS, BeamSearch, BestOfN, Greedy, MCTSConfig, RandomPolicy, Sampling
from textgym_agents.decoding.mcts import select_snapshots
from textgym_agents.losses import policy_gradient_loss
from textgym_agents.policy import ActionOutput
from textgym_agents.replay import EpisodeReplay
from textgym_agents.sb3 import (
    EpisodeReplayBuffer,
    EpisodeRolloutBuffer,
    LMActorCriticPolicy,
    LMQPolicy,
    ReportLogProbs,
)

MODES = ("SameStep", "NextStep", "Disabled")
SUFFIXES = (".jsonl", ".parquet")
EOS = TOKENIZER.eos_token_id


class Chatter:
    """Says up to three letters, and leaves the dialogue with one in seven replies, in words or without."""

    def __call__(self, batch, rngs):
        return [self.reply(rng) for rng in rngs]

    def reply(self, rng):
        letters = "".join(rng.choice(list("abcdef"), size=rng.integers(4)))
        return Reply(letters, "success" if rng.random() < 1 / 7 else None)


class ShareOfB:
    """Return the fraction of the letter b in the tokens of the agent, of 10."""

    def __call__(self, batch):
        return np.array([sum(turn.count("b") for turn in turns) / 10 for turns in batch.agent_turns])


def settings_of(**keywords):
    return {
        "tokenizer": TOKENIZER, "prompts": ["a", "cab", "dag", "fee"], "scorer": ShareOfB(), "user": Chatter(),
        "reply_format": "{reply}g", "max_new_tokens": 10, "max_prompt_tokens": 4, "max_turns": 4,
        "max_reply_tokens": 4, "time_limit": "terminated",
    } | keywords  # fmt: skip


def make_env(num_envs=8, mode="SameStep", **keywords):
    return gym.make_vec("TextGen-v0", num_envs=num_envs, autoreset_mode=mode, **settings_of(**keywords))


def lively_lm(seed=0, vocab_size=8, **keywords):
    """Return a random LM that ends about every third turn after each token, and whose states differ."""
    model = random_lm(vocab_size, seed=seed, **keywords)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0)
    return model


def lively_policy(seed=0, **keywords):
    policy = LMPolicy(lively_lm(seed, **keywords), value_function="linear", value_gradient=True)
    nn.init.normal_(policy.value_head.weight, generator=torch.Generator().manual_seed(seed))
    return policy


def sampled(policy=None, num_episodes=12, seed=3, **keywords):
    generator = torch.Generator().manual_seed(seed)
    return collect(make_env(**keywords), policy or lively_policy(), num_episodes, seed=seed, generator=generator)


def text_of(episodes, b, tokenizer=TOKENIZER):
    """Return the ids of a whole text and which are the agent's, from the episode's info."""
    info = episodes.infos[b]
    prompt = tokenizer.encode(info["prompt"])
    return prompt + info["completion_ids"], [False] * len(prompt) + info["is_action"]


def turns_of(is_action, ids, eos):
    """Return the columns of each of the agent's turns."""
    turns = [[]]
    for column in np.flatnonzero(is_action):
        turns[-1].append(int(column))
        if ids[column] == eos:
            turns.append([])
    return [turn for turn in turns if turn]


# Which tokens are actions --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_episodes_agree_with_the_final_info(mode):
    episodes = sampled(num_episodes=30, mode=mode)
    assert max(len(info["turns"]) for info in episodes.infos) > 4
    for b, info in enumerate(episodes.infos):
        ids, is_action = text_of(episodes, b)
        steps, start = int(episodes.num_steps[b]), int(episodes.prompt_lengths[b])
        assert episodes.positions[b, :steps].tolist() == np.flatnonzero(is_action).tolist()
        assert (episodes.positions[b, steps:] == 0).all()
        assert episodes.ids[b].tolist() == ids + [0] * (episodes.ids.shape[1] - len(ids))
        assert int(episodes.action_ends[b]) == np.flatnonzero(is_action)[-1] + 1
        assert int(episodes.text_lengths[b]) == start + info["length"] == len(ids)
        assert episodes.returns[b].item() == pytest.approx(info["score"])
        assert (episodes.rewards[b, steps:] == 0).all()


def test_a_reward_per_turn_lies_on_the_tokens_that_end_turns():
    episodes = sampled(reward="per_turn")
    for b, info in enumerate(episodes.infos):
        chosen = episodes.ids[b, episodes.positions[b, : int(episodes.num_steps[b])]]
        paid = episodes.rewards[b, : len(chosen)].nonzero()[:, 0]
        assert all(chosen[t] == EOS or t == len(chosen) - 1 for t in paid)
        assert episodes.returns[b].item() == pytest.approx(info["score"], abs=1e-6)


class ByText:
    """Chooses a hash of the text; ends a turn with each third token."""

    vocab_size = 8

    def act(self, ids, action_masks=None, *, active=None, deterministic=False, generator=None):
        lengths = (ids != 8).sum(axis=1)
        number = (np.where(ids == 8, 0, ids) * np.arange(1, ids.shape[1] + 1) ** 2).sum(axis=1) + lengths
        actions = np.where(number % 3 == 0, EOS, number % 7)
        return ActionOutput(actions, -lengths.astype(np.float32), lengths.astype(np.float32))


class Step(NamedTuple):
    """By hand: the text before an action, the action and its reward."""

    text: list[int]
    action: int
    reward: float


def by_hand(seed, num_episodes, **keywords):
    """Step a single environment, and return of each episode its steps, its last text and its last info."""
    env = gym.make("TextGen-v0", **settings_of(**keywords))
    observation, _ = env.reset(seed=seed)
    for _ in range(num_episodes):
        steps, done = [], False
        while not done:
            text = observation[observation != 8].tolist()
            action = int(ByText().act(observation[None]).actions[0])
            observation, reward, terminated, truncated, info = env.step(action)
            steps.append(Step(text, action, reward))
            done = terminated or truncated
        yield steps, observation[observation != 8].tolist(), info
        observation, _ = env.reset()


@pytest.mark.parametrize("mode", MODES)
def test_collecting_gives_the_episodes_of_single_environments_stepped_by_hand(mode):
    episodes = collect(make_env(6, mode, reward="per_turn"), ByText(), 24, seed=5)
    known = [by_hand(5 + slot, 8, reward="per_turn") for slot in range(6)]
    first = [next(slot) for slot in known]
    others = [episode for slot in known for episode in slot]
    for b, info in enumerate(episodes.infos):
        steps, text, last = first[b] if b < 6 else next(e for e in others if same_start(e, episodes, b))
        assert info == last
        assert episodes.ids[b, : int(episodes.text_lengths[b])].tolist() == text
        count = int(episodes.num_steps[b])
        assert count == len(steps)
        assert episodes.positions[b, :count].tolist() == [len(step.text) for step in steps]
        assert episodes.ids[b, episodes.positions[b, :count]].tolist() == [step.action for step in steps]
        assert episodes.rewards[b, :count].tolist() == pytest.approx([step.reward for step in steps])
        assert episodes.values[b, :count].tolist() == [len(step.text) for step in steps]


def same_start(by_hand, episodes, b):
    """Whether an episode stepped by hand is the collected one, by the user's replies."""
    return by_hand[2]["prompt"] == episodes.infos[b]["prompt"] and by_hand[1] == text_of(episodes, b)[0]


def test_an_episode_by_hand():
    """The prompt "a", the turn "b", the reply "cg", the turn "" and the closing word "d"."""

    class Brief:
        def __call__(self, batch, rngs):
            return [Reply("c") if len(turns) == 1 else Reply("d", "success") for turns in batch.agent_turns]

    class Writes(ByText):
        def act(self, ids, *args, **keywords):
            choice = super().act(ids)
            return choice._replace(actions=np.where((ids[:, 1] == 8), 1, EOS))

    episodes = collect(make_env(1, user=Brief(), prompts=["a"]), Writes(), 1, seed=0)
    assert episodes.ids.tolist() == [[0, 1, EOS, 2, 6, EOS, 3]]
    assert episodes.positions.tolist() == [[1, 2, 5]]
    assert (episodes.action_ends.tolist(), episodes.text_lengths.tolist()) == ([6], [7])
    assert [columns.tolist() for columns in episodes.states()] == [[0, 0, 0], [0, 1, 4]]
    assert episodes.rewards.tolist() == [[0.0, 0.0, pytest.approx(0.1)]]
    assert [turn["content"] for turn in episodes.infos[0]["turns"]] == ["b", "c", "", "d"]
    assert episodes.infos[0]["end_reason"] == "success"


def test_parts_of_the_episodes_keep_their_turns():
    episodes = sampled(num_episodes=40)
    closed = (episodes.text_lengths > episodes.action_ends).nonzero()[:, 0].numpy()
    chosen = np.array([7, closed[0], closed[0]])
    part = episodes[chosen]
    assert torch.equal(part.positions, episodes.positions[chosen])
    assert torch.equal(part.text_lengths, episodes.text_lengths[chosen])
    assert part.ids.shape[1] == int(episodes.text_lengths[chosen].max())
    policy = lively_policy()
    torch.testing.assert_close(policy.evaluate(part).log_probs, policy.evaluate(episodes).log_probs[chosen])


# What the policy says of them ----------------------------------------------------------------------------------------


class Dialogue(NamedTuple):
    """A setting of the property below."""

    seed: int
    tokenizer: object
    keywords: dict


@st.composite
def dialogues(draw):
    tokenizer = draw(st.sampled_from([TOKENIZER, CharTokenizer("abcdefgh"), ByteTokenizer()]))
    keywords = {
        "tokenizer": tokenizer,
        "max_turns": draw(st.integers(1, 5)),
        "max_new_tokens": draw(st.integers(1, 12)),
        "time_limit": draw(st.sampled_from(["terminated", "truncated"])),
        "reply_format": draw(st.sampled_from(["{reply}", "{reply}g", "a{reply}"])),
        "constraints": draw(st.sampled_from([(), [BanTokens(["c"])]])),
    }
    return Dialogue(draw(st.integers(0, 2**16)), tokenizer, keywords)


def evaluation_of_turn(policy, ids, turn, valid):
    """Evaluate a turn on its own, from the text up to its end: log-probabilities, entropies, values, one per token."""
    output = policy.model(input_ids=torch.tensor([ids[: turn[-1] + 1]]), output_hidden_states=True)
    before = [column - 1 for column in turn]
    logits = output.logits[0, before]
    if valid is not None:
        logits = logits.masked_fill(~valid, -torch.inf)
    log_probs = F.log_softmax(logits, dim=-1)
    chosen = log_probs.gather(1, torch.tensor([ids[column] for column in turn])[:, None])[:, 0]
    entropies = torch.distributions.Categorical(logits=logits).entropy()
    return (
        chosen,
        entropies,
        F.linear(output.hidden_states[-1][0, before], policy.value_head.weight, policy.value_head.bias)[:, 0],
    )


def evaluation_of_each_turn(policy, episodes, dialogue):
    """Yield the row and steps of each turn, with the evaluation of them."""
    valid = episodes.valid_actions(policy.vocab_size)
    first = 0
    for b in range(len(episodes)):
        ids, is_action = text_of(episodes, b, dialogue.tokenizer)
        step = 0
        for turn in turns_of(is_action, ids, dialogue.tokenizer.eos_token_id):
            mask = None if valid is None else valid[first : first + len(turn)]
            yield b, slice(step, step + len(turn)), evaluation_of_turn(policy, ids, turn, mask)
            step, first = step + len(turn), first + len(turn)
        assert step == int(episodes.num_steps[b])


@settings(max_examples=25)
@given(dialogue=dialogues())
def test_each_turn_is_evaluated_as_if_on_its_own_and_its_gradients_add_up(dialogue):
    policy = lively_policy(dialogue.seed, vocab_size=dialogue.tokenizer.vocab_size)
    episodes = sampled(policy, 5, dialogue.seed, num_envs=3, **dialogue.keywords)
    now = policy.evaluate(episodes, entropy_gradient=True)
    advantages = torch.randn(episodes.mask.shape, generator=torch.Generator().manual_seed(0))
    loss = policy_gradient_loss(now.log_probs, advantages) - 0.3 * now.entropies + now.values.square()
    got = torch.autograd.grad(loss[episodes.mask].sum(), list(policy.parameters()))
    wanted = [torch.zeros_like(gradient) for gradient in got]
    for b, steps, (log_probs, entropies, values) in evaluation_of_each_turn(policy, episodes, dialogue):
        torch.testing.assert_close(now.log_probs[b, steps], log_probs, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(episodes.log_probs[b, steps], log_probs, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(now.entropies[b, steps], entropies, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(now.values[b, steps], values, atol=1e-4, rtol=1e-4)
        turn_loss = (-advantages[b, steps] * log_probs - 0.3 * entropies + values.square()).sum()
        for total, part in zip(wanted, torch.autograd.grad(turn_loss, list(policy.parameters())), strict=True):
            total += part
    for ours, theirs in zip(got, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4 * max(1.0, float(theirs.abs().max())), rtol=1e-3)
    for name in ("log_probs", "entropies", "values"):
        assert (getattr(now, name)[~episodes.mask] == 0).all()


def test_a_text_that_was_cut_off_goes_on_after_the_reply():
    policy = lively_policy()
    episodes = sampled(policy, 240, time_limit="truncated", max_new_tokens=3)
    values = policy.last_values(episodes)
    after_a_reply = 0
    for b in range(240):
        ids, is_action = text_of(episodes, b)
        if not episodes.truncated[b]:
            assert values[b] == 0
            continue
        after_a_reply += not is_action[-1]
        hidden = policy.model(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states[-1]
        assert values[b].item() == pytest.approx(
            F.linear(hidden, policy.value_head.weight, policy.value_head.bias)[0, -1, 0].item(), abs=1e-4
        )
    assert after_a_reply > 3


def test_the_next_state_of_q_learning_is_the_one_after_the_reply():
    policy = QPolicy(lively_lm(), q_from="logits")
    config = DQNConfig(q_lambda=0.0, double_q=False, bootstrap_truncated=True, num_episodes=24)
    agent = DQN(policy, make_env(time_limit="truncated"), config)
    episodes = agent.collect()
    targets = agent._targets(episodes, policy.evaluate(episodes, with_truncated=True))
    for b in range(24):
        ids, is_action = text_of(episodes, b)
        actions = np.flatnonzero(is_action).tolist()
        nexts = actions[1:] + ([len(ids)] if episodes.truncated[b] else [])
        values = [policy.model(input_ids=torch.tensor([ids[:end]])).logits[0, -1].max() for end in nexts]
        wanted = episodes.rewards[b, : len(actions)] + torch.stack([*values, torch.tensor(0.0)])[: len(actions)]
        torch.testing.assert_close(targets[b, : len(actions)], wanted, atol=1e-4, rtol=1e-4)


def test_a_kl_term_of_the_environment_charges_the_agents_tokens_alone():
    reference = lively_lm(1)
    episodes = sampled(kl_penalty=0.5, reference=reference)
    kl = episodes.log_probs - LMPolicy(reference).evaluate(episodes).log_probs.detach()
    assert [info["kl"] for info in episodes.infos] == pytest.approx(kl.sum(dim=1).tolist(), abs=1e-3)
    torch.testing.assert_close(episodes.rewards[:, 0], -0.5 * kl[:, 0], atol=1e-3, rtol=0)


def test_every_token_of_a_dialogue_passes_through_the_model_once():
    policy = lively_policy()
    env = make_env(4, prompts=iter([textgym.Sample(prompt) for prompt in ("a", "cab", "dag", "fee", "bed")] * 9))
    windows = np.full((4, env.unwrapped.window), 8)
    windows[:, 0] = EOS
    policy.act(windows)  # builds the stream, which tries out the model
    fed = []

    def count(module, args, keywords):
        fed.append(keywords["input_ids"].numel())

    with policy.model.register_forward_pre_hook(count, with_kwargs=True):
        episodes = collect(env, policy, 4, seed=0, generator=torch.Generator().manual_seed(8))
    assert len({info["prompt"] for info in episodes.infos}) == 4
    assert max(len(info["turns"]) for info in episodes.infos) > 4
    assert sum(fed) == int((episodes.action_ends - 1).sum())  # nothing follows the last action


# Episodes on disk and in memory --------------------------------------------------------------------------------------


TENSORS = (
    "ids", "prompt_lengths", "num_steps", "rewards", "log_probs", "values", "truncated", "positions", "text_lengths"
)  # fmt: skip


def assert_same(first, second):
    for name in TENSORS:
        one, other = getattr(first, name), getattr(second, name)
        assert one.dtype == other.dtype, name
        assert torch.equal(one, other), name
    assert (first.action_masks is None) == (second.action_masks is None)
    if first.action_masks is not None:
        assert (first.action_masks == second.action_masks).all()


def written(path, *batches):
    with EpisodeRecorder(path) as recorder:
        for episodes in batches:
            recorder.write(episodes)
    return path


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    "keywords",
    [{}, {"max_turns": 1}, {"time_limit": "truncated"}, {"constraints": [BanTokens(["c"])]}, {"reward": "per_turn"}],
    ids=lambda keywords: next(iter(keywords), "plain"),
)
def test_what_is_read_is_what_was_written(tmp_path, suffix, keywords):
    episodes = sampled(**keywords)
    again = read_episodes(written(tmp_path / f"episodes{suffix}", episodes))
    assert_same(episodes, again)
    assert again.infos == episodes.infos


@st.composite
def any_episodes(draw):
    size = draw(st.integers(1, 4))
    is_action = [draw(st.lists(st.booleans(), min_size=1, max_size=6).filter(any)) for _ in range(size)]
    prompts = draw(st.lists(st.integers(1, 4), min_size=size, max_size=size))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    steps = torch.tensor([sum(mask) for mask in is_action])
    lengths = torch.tensor([prompt + len(mask) for prompt, mask in zip(prompts, is_action, strict=True)])
    positions = np.zeros((size, int(steps.max())), dtype=np.int64)
    for b, mask in enumerate(is_action):
        positions[b, : sum(mask)] = prompts[b] + np.flatnonzero(mask)
    inside = np.arange(positions.shape[1]) < steps.numpy()[:, None]
    ids = rng.integers(1, 20, (size, int(lengths.max()))) * (np.arange(int(lengths.max())) < lengths.numpy()[:, None])

    def floats():
        return torch.from_numpy((rng.normal(size=inside.shape) * inside).astype(np.float32))

    return Episodes(
        ids=torch.from_numpy(ids),
        prompt_lengths=torch.tensor(prompts),
        num_steps=steps,
        rewards=floats(),
        log_probs=floats(),
        values=torch.zeros(inside.shape),
        truncated=torch.from_numpy(rng.random(size) < 0.5),
        action_masks=None,
        infos=[{"score": 0.5}] * size,
        positions=torch.from_numpy(positions),
        text_lengths=lengths,
    )


@pytest.mark.parametrize("suffix", SUFFIXES)
@given(episodes=any_episodes())
def test_any_turns_survive_the_disk(tmp_path_factory, suffix, episodes):
    assert_same(episodes, read_episodes(written(tmp_path_factory.mktemp("episodes") / f"any{suffix}", episodes)))


@given(batches=st.lists(any_episodes(), min_size=1, max_size=4))
def test_any_turns_survive_the_replay_and_its_checkpoint(tmp_path_factory, batches):
    replay, again = EpisodeReplay(20), EpisodeReplay(20)
    for episodes in batches:
        replay.add(episodes)
    folder = tmp_path_factory.mktemp("replay")
    replay.save(folder)
    again.load(folder)
    everything = {row for episodes in batches for row in rows_of(episodes)}
    for memory in (replay, again):
        drawn = memory.sample(30, torch.Generator().manual_seed(0))
        assert set(rows_of(drawn)) <= everything
        assert drawn.ids.shape[1] == int(drawn.text_lengths.max())


def rows_of(episodes):
    """Yield text, positions and rewards of each episode."""
    for b, (length, steps) in enumerate(zip(episodes.text_lengths.tolist(), episodes.num_steps.tolist(), strict=True)):
        text, columns = episodes.ids[b, :length].tolist(), episodes.positions[b, :steps].tolist()
        yield tuple(text), tuple(columns), tuple(episodes.rewards[b, :steps].tolist())


def test_without_a_user_a_file_has_no_turns_and_files_without_the_column_are_read(tmp_path):
    episodes = sampled(user=None)
    path = written(tmp_path / "episodes.jsonl", episodes)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert {row.pop("is_action") for row in rows} == {row.pop("turns") for row in rows} == {None}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert_same(episodes, read_episodes(path))


GOOD = {"prompt_ids": [1], "completion_ids": [2, 3, 4], "is_action": [True, False, True], "rewards": [0.0, 1.0]}


def test_columns_that_others_write_are_enough(tmp_path):
    path = tmp_path / "theirs.jsonl"
    path.write_text(json.dumps(GOOD) + "\n")
    episodes = read_episodes(path)
    assert episodes.positions.tolist() == [[1, 3]]
    assert episodes.ids.tolist() == [[1, 2, 3, 4]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rewards": [0.0, 0.5, 1.0]}, "line 2: 'rewards' has 3 entries, but there are 2 actions in 'is_action'"),
        ({"values": [0.0]}, "line 2: 'values' has 1 entries, but there are 2 actions in 'is_action'"),
        ({"is_action": [True, True]}, "line 2: 'is_action' has 2 entries, 'completion_ids' has 3"),
        ({"is_action": [False] * 3}, "line 2: 'is_action' must be a list of booleans with at least one true"),
        ({"is_action": [1, 0, 1]}, "line 2: 'is_action' must be a list of booleans with at least one true"),
        ({"is_action": "yes"}, "line 2: 'is_action' must be a list of booleans with at least one true"),
        ({"is_action": None}, "line 2: 'rewards' has 2 entries, but there are 3 tokens in 'completion_ids'"),
        ({"action_masks": "AAAA"}, "differ in width, or only some episodes have them"),
    ],
)
def test_a_row_that_does_not_fit_is_named(tmp_path, change, message):
    path = tmp_path / "episodes.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in (GOOD, GOOD | change)))
    with pytest.raises(ValueError, match=message):
        read_episodes(path)


# Agents --------------------------------------------------------------------------------------------------------------


class Examiner:
    """Asks for a letter each turn, drawn from the episode's generator."""

    def __call__(self, batch, rngs):
        return [Reply("abcd"[rng.integers(4)]) for rng in rngs]


class ShareOfEchoes:
    """Return the fraction of three turns that consist of the requested letter."""

    def __call__(self, batch):
        return np.array([self.share(*episode) for episode in zip(batch.prompts, batch.turns, strict=True)])

    def share(self, prompt, turns):
        asked = [prompt, *(turn["content"] for turn in turns if turn["role"] == "user")]
        said = [turn["content"] for turn in turns if turn["role"] == "assistant"]
        return sum(one == other for one, other in zip(asked, said, strict=False)) / 3


ECHO = {
    "tokenizer": CharTokenizer("abcd"), "prompts": list("abcd"), "user": Examiner(), "scorer": ShareOfEchoes(),
    "reply_format": "{reply}", "max_turns": 3, "max_reply_tokens": 1, "max_new_tokens": 6, "max_prompt_tokens": 1,
    "reward": "per_turn", "time_limit": "terminated",
}  # fmt: skip
"""Five tokens, of which the right two in each of three turns earn 1. At random a turn is right once in 25 times."""


def echo_env(num_envs=64, **keywords):
    return gym.make_vec("TextGen-v0", num_envs=num_envs, autoreset_mode="SameStep", **ECHO | keywords)


def greedy_return(policy):
    return collect(echo_env(), policy, 64, seed=9, deterministic=True).returns.mean().item()


LEARNERS = {
    "reinforce": (Reinforce, LMPolicy, ReinforceConfig, {"kl_coef": 0.0}),
    "ppo": (PPO, LMPolicy, PPOConfig, {"kl_coef": 0.0, "ent_coef": 0.01}),
    "dqn": (DQN, textbook_q_policy, DQNConfig, EPSILON_GREEDY | {"num_episodes": 64}),
}


@pytest.mark.parametrize("seed", ONE_SEED_AND_TWO_SLOW)
@pytest.mark.parametrize("name", slow_but(LEARNERS, "reinforce"))
def test_it_learns_to_say_back_what_it_is_asked_for_in_each_turn(name, seed):
    agent_class, policy_class, config_class, keywords = LEARNERS[name]
    config = config_class(learning_rate=3e-3, gamma=0.9, seed=seed, **keywords)
    agent = agent_class(policy_class(random_lm(5, window=16, seed=seed)), echo_env(), config)
    returns = []

    def goes_on(agent, metrics):
        if agent.num_updates % 20 == 0:
            returns.append(greedy_return(agent.policy))
        return not returns or returns[-1] < 0.95

    assert collect(echo_env(), RandomPolicy(5), 64, seed=9).returns.mean() < 0.1
    agent.learn(40_000, callback=goes_on)
    assert returns[-1] >= 0.95


def agents():
    online = [
        (Reinforce, ReinforceConfig(kl_coef=0.1, ent_coef=0.1)),
        (A2C, A2CConfig(bootstrap_truncated=True)),
        (PPO, PPOConfig(batch_size=3, kl_estimator="exact", micro_batch=2)),
        (GRPO, GRPOConfig(num_episodes=8)),
        (ExpertIteration, ExpertIterationConfig()),
        (DQN, DQNConfig(batch_size=8, bootstrap_truncated=True)),
        (SoftQ, SoftQConfig(batch_size=8, single_step_coef=1.0, bootstrap_truncated=True)),
    ]
    return [
        pytest.param(kind, config, id=kind.__name__, marks=() if kind in (GRPO, DQN) else pytest.mark.slow)
        for kind, config in online
    ]


@pytest.mark.parametrize(("agent_class", "config"), agents())
def test_an_online_agent_learns_from_dialogues_and_goes_on_from_its_checkpoint(tmp_path, agent_class, config):
    env = make_env(4, time_limit="truncated", group_size=2, constraints=[BanTokens(["c"])])
    agent = agent_class(agent_class.policy_class(small_lm()), env, config)
    before = [parameter.clone() for parameter in agent.policy.parameters()]
    agent.learn(1)
    assert any(len(info["turns"]) > 2 for info in agent.episodes.infos)
    assert agent.num_timesteps == sum(sum(info["is_action"]) for info in agent.episodes.infos)
    assert not all(map(torch.equal, before, agent.policy.parameters()))
    agent.save(tmp_path / "agent")
    again = agent_class.load(tmp_path / "agent", make_env(4, time_limit="truncated", group_size=2,
                                                          constraints=[BanTokens(["c"])]))  # fmt: skip
    for one in (agent, again):
        one.learn(1)
    for ours, theirs in zip(agent.policy.parameters(), again.policy.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(
    ("agent_class", "config"),
    [
        pytest.param(BehaviourCloning, BehaviourCloningConfig(batch_size=8), id="BehaviourCloning"),
        pytest.param(ILQL, ILQLConfig(batch_size=8, bootstrap_truncated=True), id="ILQL"),
        pytest.param(OfflineSoftQ, OfflineSoftQConfig(batch_size=8), id="OfflineSoftQ"),
    ],
)
def test_an_offline_agent_learns_from_recorded_dialogues(tmp_path, agent_class, config):
    path = written(tmp_path / "episodes.jsonl", sampled(num_episodes=16, time_limit="truncated"))
    agent = agent_class(agent_class.policy_class(small_lm()), path, config)
    before = [parameter.clone() for parameter in agent.policy.parameters()]
    agent.learn(1)
    assert not all(map(torch.equal, before, agent.policy.parameters()))


def test_cloning_does_not_imitate_the_user():
    """The loss is the mean over the agent's tokens, each evaluated on its own."""
    data = sampled(num_episodes=8)
    agent = BehaviourCloning(LMPolicy(lively_lm(2), value_function="linear"), data)
    dialogue = Dialogue(0, TOKENIZER, {})
    per_turn = [evaluation[0] for *_, evaluation in evaluation_of_each_turn(agent.policy, data, dialogue)]
    wanted = -torch.cat(per_turn).mean().item()
    assert agent.update(data)["train/cross_entropy"] == pytest.approx(wanted, abs=1e-4)


# Decoding ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "name",
    ["random", "greedy", "sampling", "beam", "best_of_n", pytest.param("mcts", marks=pytest.mark.slow), "mcts_value"],
)
def test_every_decoder_plays_dialogues(name, mode):
    env = make_env(3, mode)
    policy = lively_policy()
    decoder = {
        "random": lambda: RandomPolicy(8),
        "greedy": lambda: Greedy(policy),
        "sampling": lambda: Sampling(policy, top_k=3),
        "beam": lambda: BeamSearch(policy, env, 2),
        "best_of_n": lambda: BestOfN(policy, env, 3),
        "mcts": lambda: MCTS(policy, env, MCTSConfig(num_simulations=3, top_k=4)),
        "mcts_value": lambda: MCTS(policy, env, MCTSConfig(num_simulations=6, top_k=4, evaluation="value")),
    }[name]()
    episodes = collect(env, decoder, 5, seed=3)
    for b in range(5):
        _, is_action = text_of(episodes, b)
        assert episodes.positions[b, : int(episodes.num_steps[b])].tolist() == np.flatnonzero(is_action).tolist()


def test_looking_ahead_observes_the_replies_of_the_environment():
    """A plan holds once made: with one per episode, best-of-n plans as often as there are episodes."""
    env, plans = make_env(3), []

    class Counting(BestOfN):
        def plan(self, active, generator):
            plans.append(active.sum())
            return super().plan(active, generator)

    episodes = collect(env, Counting(lively_policy(), env, 4), 3, seed=3)
    assert any(len(info["turns"]) > 2 for info in episodes.infos)
    assert sum(plans) == 3


def test_snapshots_of_dialogues_are_combined_by_episode():
    env = make_env(2)
    env.reset(seed=0)
    before = env.unwrapped.get_state()
    env.step(np.array([EOS, EOS]))
    after = env.unwrapped.get_state()
    state = select_snapshots([before, after], np.array([1, 0]))
    assert state["ids"].tolist() == [after["ids"][0].tolist(), before["ids"][1].tolist()]
    assert state["rngs"] == [after["rngs"][0], before["rngs"][1]]
    for name in ("replies", "is_action"):
        one, other, both = (list(part["user_turns"][name]) for part in (after, before, state))
        assert np.array_equal(both[0], one[0])
        assert np.array_equal(both[1], other[1])
        assert not np.array_equal(one[1], other[1])


def test_the_best_of_many_dialogues_is_better_than_one():
    env = make_env(16, prompts=["a"])
    policy = lively_policy()
    one = collect(env, Sampling(policy), 32, seed=3).returns.mean()
    assert collect(env, BestOfN(policy, env, 16), 32, seed=3).returns.mean() > one + 0.05


def test_a_beam_of_one_is_greedy():
    policy, env = lively_policy(), make_env(4)
    beam, greedy = (collect(env, one, 4, seed=3).ids for one in (BeamSearch(policy, env, 1), Greedy(policy)))
    assert torch.equal(beam, greedy)


# Stock Stable-Baselines3 ---------------------------------------------------------------------------------------------


def sb3_env(num_envs=4, **keywords):
    return TextGenVecEnv(num_envs, **settings_of(**keywords))


class Look(BaseCallback):
    """Looks at each rollout before it is learned from."""

    def __init__(self, look):
        super().__init__()
        self.look = look

    def _on_step(self):
        return True

    def _on_rollout_end(self):
        self.look(self.model)


def test_segments_of_dialogues_are_evaluated_as_they_were_acted():
    errors, gaps = [], []

    def look(model):
        for batch in model.rollout_buffer.get(16):
            values, log_probs, _ = model.policy.evaluate_actions(batch.observations, batch.actions)
            errors.append((values - batch.old_values).abs().max().item())
            errors.append((log_probs - batch.old_log_prob).abs().max().item())
            inside = batch.observations.rows.diff() == 0
            gaps.append(int(batch.observations.columns.diff()[inside].max()))

    model = sb3.PPO(
        LMActorCriticPolicy, sb3_env(time_limit="truncated"), n_steps=24, batch_size=32, n_epochs=2, seed=0,
        policy_kwargs={"model": small_lm()}, rollout_buffer_class=EpisodeRolloutBuffer, device="cpu",
    )  # fmt: skip
    before = [parameter.clone() for parameter in model.policy.parameters()]
    model.learn(192, callback=Look(look))
    assert max(errors) < 1e-4
    assert max(gaps) > 2
    assert not all(map(torch.equal, before, model.policy.parameters()))


def test_stock_ppo_charges_the_kl_of_the_agents_tokens():
    told = []

    class Told(ReportLogProbs):
        def _on_step(self):
            told.extend((info["kl"], info["is_action"]) for info in self.locals["infos"] if "kl" in info)
            return True

    model = sb3.PPO(
        LMActorCriticPolicy, sb3_env(kl_penalty=0.1, reference=small_lm()), n_steps=16, batch_size=32, seed=0,
        policy_kwargs={"model": small_lm()}, rollout_buffer_class=EpisodeRolloutBuffer, device="cpu",
    )  # fmt: skip
    model.learn(64, callback=Told())
    assert any(not all(is_action) for _, is_action in told)
    assert [kl for kl, _ in told] == pytest.approx([0.0] * len(told), abs=1e-3)  # nothing was learned yet


def test_stock_ppo_bootstraps_a_text_that_was_cut_off_after_the_reply():
    env = sb3_env(time_limit="truncated", max_new_tokens=2)
    policy = LMActorCriticPolicy(
        env.observation_space, env.action_space, lambda _: 0.0, model=small_lm(), value_function="linear"
    )
    nn.init.normal_(policy.lm.value_head.weight, generator=torch.Generator().manual_seed(0))
    observations, after_a_reply = env.reset(), 0
    for step in range(40):
        with torch.no_grad():
            policy(torch.from_numpy(observations))
        actions = np.full(4, EOS if step % 2 else 1)
        observations, _, _, infos = env.step(actions)
        for info in infos:
            if info.get("TimeLimit.truncated") and not info["is_action"][-1]:
                last = info["terminal_observation"]
                with torch.no_grad():
                    got = policy.predict_values(torch.from_numpy(last[None])).item()
                text = torch.from_numpy(last[last != 8])[None]
                hidden = policy.lm.model(input_ids=text, output_hidden_states=True).hidden_states[-1][0, -1:]
                assert got == pytest.approx(
                    F.linear(hidden, policy.lm.value_head.weight, policy.lm.value_head.bias).item(), abs=1e-4
                )
                after_a_reply += 1
    assert after_a_reply > 5


def test_the_replay_for_stock_dqn_holds_the_windows_that_were_seen():
    env = sb3_env(time_limit="truncated")
    buffer = EpisodeReplayBuffer(10_000, env.observation_space, env.action_space, "cpu", n_envs=4, gamma=1.0)
    rng, seen, observations = np.random.default_rng(0), set(), env.reset()
    for _ in range(60):
        actions = np.where(rng.random(4) < 0.4, EOS, rng.integers(7, size=4))
        following, rewards, dones, infos = env.step(actions)
        after = [infos[i]["terminal_observation"] if dones[i] else following[i] for i in range(4)]
        buffer.add(observations, np.stack(after), actions, rewards, dones, infos)
        for i in range(4):
            texts = (tuple(window[window != 8].tolist()) for window in (observations[i], after[i]))
            seen.add((*texts, int(actions[i])))
        observations = following
    np.random.seed(0)  # noqa: NPY002
    sample = buffer.sample(200)
    now, then = sample.observations, sample.next_observations
    for m, action in enumerate(sample.actions[:, 0].tolist()):
        texts = (tuple(part.ids[part.rows[m], : part.columns[m] + 1].tolist()) for part in (now, then))
        assert (*texts, action) in seen
    assert int((then.columns - now.columns).max()) > 2


def test_stock_dqn_learns_from_dialogues():
    model = sb3.DQN(
        LMQPolicy, sb3_env(), policy_kwargs={"model": small_lm()}, replay_buffer_class=EpisodeReplayBuffer,
        replay_buffer_kwargs={"gamma": 1.0}, gamma=1.0, learning_starts=16, batch_size=16, seed=0, device="cpu",
    )  # fmt: skip
    before = [parameter.clone() for parameter in model.policy.q_net.parameters()]
    model.learn(64)
    assert not all(map(torch.equal, before, model.policy.q_net.parameters()))


# A window that does not fit ------------------------------------------------------------------------------------------


def test_a_window_longer_than_the_model_names_the_settings_to_lower():
    with pytest.raises(ValueError, match="where a user replies max_turns or max_reply_tokens"):
        Reinforce(LMPolicy(small_lm()), make_env(max_turns=20))
