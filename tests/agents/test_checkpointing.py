"""Checkpoint: when it saves, what it keeps, what a killed run leaves behind, and resuming from the newest."""

import pytest
import torch

from fixtures import make_env, small_lm
from textgym_agents import BehaviourCloning, Checkpoint, LMPolicy, Reinforce, RunFolder, collect
from textgym_agents.inspection.subject import as_policy


def make_agent(**settings):
    settings = {"num_episodes": 8, "kl_coef": 0.0, "learning_rate": 3e-3} | settings
    return Reinforce(LMPolicy(small_lm()), make_env(), **settings)


def numbers_in(folder):
    return sorted(int(path.name) for path in folder.iterdir())


def tokens_of_updates(total):
    tokens = []
    make_agent().learn(total, callback=lambda agent, _: tokens.append(agent.num_timesteps))
    return tokens


def parameters_of(agent):
    return torch.cat([p.detach().flatten() for p in agent.policy.parameters()])


def test_it_saves_after_each_kth_update_and_at_the_end(tmp_path):
    tokens = tokens_of_updates(150)
    assert len(tokens) == 4
    make_agent().learn(150, callback=Checkpoint(tmp_path, 3, keep=100))
    assert numbers_in(tmp_path) == tokens[2:]


def test_it_saves_after_the_first_update_past_each_multiple_of_tokens(tmp_path):
    tokens = tokens_of_updates(300)
    make_agent().learn(300, callback=Checkpoint(tmp_path, 100, unit="tokens", keep=100))
    firsts = {next(n for n in tokens if n >= k) for k in range(100, tokens[-1] + 1, 100)}
    assert numbers_in(tmp_path) == sorted(firsts | {tokens[-1]})


@pytest.mark.parametrize("keep", [1, 2])
def test_it_keeps_the_newest(tmp_path, keep):
    make_agent().learn(100, callback=Checkpoint(tmp_path, 1, keep=keep))
    assert numbers_in(tmp_path) == tokens_of_updates(100)[-keep:]


def test_without_a_number_it_saves_at_the_end_only_and_what_is_saved_is_not_saved_again(tmp_path):
    agent, saved = make_agent(), []
    save, agent.save = agent.save, lambda path: saved.append(path) or save(path)
    agent.learn(100, callback=Checkpoint(tmp_path / "end"))
    agent.learn(1, callback=Checkpoint(tmp_path / "each", 1))
    assert [path.parent.name for path in saved] == ["end", "each"]


@pytest.mark.parametrize("kind", [Checkpoint, RunFolder])
def test_load_takes_the_folder_and_resumes_exactly_from_the_newest(tmp_path, kind):
    straight = make_agent().learn(300)
    folder = tmp_path / "run"

    def stop(agent, metrics):
        if agent.num_updates == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_agent().learn(300, callback=[kind(folder, every=2, keep=2), stop])
    resumed = Reinforce.load(folder, make_env())
    assert resumed.num_updates == 3
    resumed.learn(resumed.planned_timesteps - resumed.num_timesteps)
    assert torch.equal(parameters_of(resumed), parameters_of(straight))
    assert as_policy(folder).model is not None


def test_an_offline_agent_is_loaded_from_the_folder_too(tmp_path):
    data = collect(make_env(), LMPolicy(small_lm()), 8, seed=0)
    agent = BehaviourCloning(LMPolicy(small_lm()), data, batch_size=4).learn(50, callback=Checkpoint(tmp_path, 1))
    assert BehaviourCloning.load(tmp_path, data).num_timesteps == agent.num_timesteps


@pytest.mark.parametrize("every", [1, None])
def test_an_update_that_raises_is_saved_only_if_nothing_else_is(tmp_path, every):
    class Diverges(Reinforce):
        def update(self, episodes):
            if self.num_updates == 2:
                raise FloatingPointError("the gradient")
            return super().update(episodes)

    agent = Diverges(LMPolicy(small_lm()), make_env(), num_episodes=8, kl_coef=0.0)
    with pytest.raises(FloatingPointError):
        agent.learn(1_000, callback=Checkpoint(tmp_path, every))
    assert agent.is_in_update
    tokens = agent.num_timesteps - int(agent.episodes.num_steps.sum())  # after the second update
    assert numbers_in(tmp_path) == [agent.num_timesteps if every is None else tokens]


def test_checkpoints_of_a_longer_training_are_not_mixed_with_new_ones(tmp_path):
    make_agent().learn(100, callback=Checkpoint(tmp_path))
    content = numbers_in(tmp_path)
    with pytest.raises(FileExistsError, match=r"holds a checkpoint after .* tokens, the agent has 0"):
        make_agent().learn(100, callback=Checkpoint(tmp_path))
    assert numbers_in(tmp_path) == content


def test_what_a_killed_program_left_is_no_checkpoint_and_is_deleted(tmp_path):
    make_agent().learn(100, callback=Checkpoint(tmp_path))
    for name in (".000000000999-abc", ".000000000001"):
        (tmp_path / name / "new").mkdir(parents=True)
    (tmp_path / "000000000998").mkdir()  # without an index
    (tmp_path / ".notes").mkdir()
    agent = Reinforce.load(tmp_path, make_env())
    agent.learn(1, callback=Checkpoint(tmp_path))
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {".notes", "000000000998", f"{agent.num_timesteps:012d}"}


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"every": 0}, ValueError, "every must be at least 1, got 0"),
        ({"keep": 0}, ValueError, "keep must be at least 1, got 0"),
        ({"every": 2.5}, TypeError, "every must be an integer, got 2.5"),
        ({"unit": "steps"}, ValueError, "tokens"),
    ],
)
def test_settings_out_of_range_are_refused(tmp_path, settings, error, message):
    with pytest.raises(error, match=message):
        Checkpoint(tmp_path, **settings)


def test_a_schedule_of_another_unit_is_not_restored(tmp_path):
    by_tokens = Checkpoint(tmp_path, 100, unit="tokens")
    by_tokens.set_state({"unit": "tokens", "position": 250})
    by_updates = Checkpoint(tmp_path, 100)
    by_updates.set_state(by_tokens.get_state())
    assert by_updates.get_state() == {"unit": "updates", "position": None}
