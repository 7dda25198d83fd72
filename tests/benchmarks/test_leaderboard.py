"""The leaderboard: runs are stored and reused, statistics are right, and the report contains them."""

import json
import math
import runpy
import subprocess
import sys
from dataclasses import asdict, fields, replace

import gymnasium as gym
import numpy as np
import pytest
import torch

from fixtures import ROOT
from textgym.tasks import TASKS, find_task
from textgym.tokenizers import WordTokenizer
from textgym_agents import LMPolicy
from textgym_agents.decoding import RandomPolicy

sys.path.insert(0, str(ROOT / "benchmarks" / "leaderboard"))
from entries import (
    ABLATIONS,
    ENTRIES,
    FIRST_CASE,
    NO_BEST_TURN,
    NUM_CASES,
    SETTINGS,
    TIMESTEPS,
    TRAINED,
    Entry,
    OptimalPolicy,
    RunSpec,
    task_env,
)
from learning_curve import LearningCurve, median_tokens, scores_of, tokens_to
from report import draw, half_width, markdown, summarise
from runs import CHUNK, FinishedRuns, held_out_episodes, perplexity, run, run_all, run_specs, untrained_scores

LEADERBOARD_FOLDER = ROOT / "benchmarks" / "leaderboard"
COMMAND = runpy.run_path(str(LEADERBOARD_FOLDER / "__main__.py"))
main = COMMAND["main"]

SILENT = [].append


def held_out_scores(entry, task, cases, **keywords):
    return np.concatenate([scores_of(episodes) for episodes in held_out_episodes(entry, task, cases, **keywords)])


def record(entry, seed, score, task="qa", curve=None, **settings):
    """Return a record as ``run`` does."""
    return {
        "job": {"task": task, "entry": entry, "seed": seed, "num_held_out": 3, "settings": settings},
        "score": score,
        "score_by_level": {"1": score, "2": 0.5},
        "perplexity": 2.0 + score,
        "samples": [{"prompt": "What?", "text": f"{entry}, {seed}\nsays\x1b this", "score": score}],
        "learning_curve": [[0, score]] if curve is None else curve,
        "trained_tokens": 100 if settings else 0,
        "training_seconds": 2.0,
        "evaluation_seconds": 1.0,
    }


RECORDS = [
    record("sampled LM", 0, 0.2),
    record("sampled LM", 1, 0.4),
    # The gap is 0.3 to 1: half of it is 0.65, three quarters are 0.825.
    record("PPO", 0, 0.6, curve=[[2010, 0.6], [4020, 0.7], [6030, 0.6]], kl_coef=0.1),
    record("PPO", 1, 0.7, curve=[[2000, 0.66], [4000, 0.9], [6000, 0.8]], kl_coef=0.1),
    record("optimum", 0, 1.0),
    record("optimum", 1, 1.0),
]
LEADERBOARD = {"command": "the command", "model": "tiny", "num_seeds": 2, "tasks": summarise(RECORDS)}


def test_half_width_is_students_t_times_the_standard_error():
    # s = 0.1, n = 3, t = 4.303: 4.303 * 0.1 / sqrt(3)
    assert half_width([0.4, 0.5, 0.6]) == pytest.approx(0.24843, abs=1e-5)
    # s = 0.05 sqrt(2), n = 2, t = 12.706: 12.706 * 0.05
    assert half_width([0.6, 0.7]) == pytest.approx(0.6353)


def test_one_value_has_no_interval():
    assert math.isnan(half_width([0.5]))


@pytest.mark.parametrize("values", [[], [0.5] * 11])
def test_half_width_raises_for_no_and_too_many_values(values):
    with pytest.raises(ValueError, match="1 to 10 values, got"):
        half_width(values)


def test_normalised_scores_are_relative_to_the_sampled_lm_and_the_optimum():
    entries = summarise(RECORDS)["qa"]["entries"]
    # (0.65 - 0.3) / (1 - 0.3)
    assert entries["PPO"]["score_normalised"] == pytest.approx(0.5)
    assert entries["sampled LM"]["score_normalised"] == 0
    assert entries["optimum"]["score_normalised"] == 1


def test_tokens_to_a_share_of_the_gap_are_those_of_the_first_evaluation_that_reaches_it():
    entries = summarise(RECORDS)["qa"]["entries"]
    assert entries["PPO"]["tokens_to"] == {"50 %": [4020, 2000], "75 %": [None, 4000]}
    assert "tokens_to" not in entries["sampled LM"]
    assert tokens_to(0.5, []) is None


def test_the_gap_of_a_learning_curve_is_that_of_its_own_cases():
    records = [
        record("sampled LM", 0, 0.0, curve=[[0, 0.2]]),
        record("optimum", 0, 1.0, curve=[[0, 0.6]]),
        record("PPO", 0, 0.9, curve=[[2000, 0.41]]),
    ]
    assert summarise(records)["qa"]["entries"]["PPO"]["tokens_to"] == {"50 %": [2000], "75 %": [None]}


def test_a_seed_that_never_reaches_a_share_counts_as_infinity():
    assert median_tokens([6000, None, 2000]) == 6000
    assert median_tokens([None, 2000, None]) == math.inf


def test_a_summary_keeps_the_scores_of_each_seed_and_the_means_of_each_level():
    entry = summarise(RECORDS)["qa"]["entries"]["PPO"]
    assert entry["scores"] == [0.6, 0.7]
    assert entry["mean"] == pytest.approx(0.65)
    assert entry["half_width"] == pytest.approx(0.6353)
    assert entry["score_by_level"] == {"1": pytest.approx(0.65), "2": 0.5}
    assert entry["trained_tokens"] == [100, 100]
    assert entry["settings"] == {"kl_coef": 0.1}


def test_without_an_optimal_policy_the_optimum_is_the_upper_bound_of_the_task():
    task = summarise([record("sampled LM", 0, 0.2, "sentiment"), record("PPO", 0, 0.6, "sentiment")])["sentiment"]
    assert (task["optimum"], task["optimum_is_played"]) == (1.0, False)
    assert task["entries"]["PPO"]["score_normalised"] == pytest.approx(0.5)
    assert task["entries"]["PPO"]["half_width"] is None


def test_the_table_has_means_intervals_shares_and_the_best_in_bold():
    page = markdown(LEADERBOARD)
    assert "Made by `the command`" in page
    assert "| PPO | **0.650 ± 0.635** |" in page
    assert "| PPO | **50 %** |" in page
    assert "| sampled LM | 0.300 ± 1.271 |" in page
    assert "| optimum | 1.000 ± 0.000 |" in page
    assert "| PPO | 3,010, - |" in page
    assert "| qa | 100 | 2 |" in page
    assert "- PPO: `kl_coef=0.1`" in page


def test_the_page_says_if_all_settings_are_defaults():
    page = markdown(LEADERBOARD | {"tasks": summarise(RECORDS[:2])})
    assert "\nAll agents have their default settings.\n" in page


def test_the_page_names_the_tasks_whose_optimum_is_a_bound():
    tasks = summarise([record("sampled LM", 0, 0.2, "sentiment")])
    page = markdown(LEADERBOARD | {"tasks": tasks})
    assert "except for sentiment, where it is the score's upper bound" in page
    assert "| optimum | 1.000 (bound) |" in page


def test_the_figure_is_a_png(tmp_path):
    draw(tmp_path / "a.png", LEADERBOARD["tasks"])
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"


def test_only_entries_that_train_have_settings():
    assert set(SETTINGS) <= set(TRAINED) < set(ENTRIES)
    assert set(TIMESTEPS) <= set(TASKS)


def test_runs_are_all_tasks_entries_and_seeds_except_an_unknown_optimum():
    specs = run_specs(["qa", "sentiment"], ["SoftQ", "supervised", "optimum"], 2, timesteps=64)
    assert [(spec.task, spec.entry, spec.seed, spec.timesteps) for spec in specs] == [
        ("qa", "SoftQ", 0, 64),
        ("qa", "SoftQ", 1, 64),
        ("qa", "supervised", 0, 64),
        ("qa", "supervised", 1, 64),
        ("qa", "optimum", 0, 0),
        ("qa", "optimum", 1, 0),
        ("sentiment", "SoftQ", 0, 64),
        ("sentiment", "SoftQ", 1, 64),
    ]
    assert len({spec.weights for spec in specs}) == 1
    assert len(specs[0].weights) == 16


def test_a_task_starts_from_its_own_model_unless_another_is_given():
    own, given = (run_specs(["qa", "quality"], ["sampled LM"], 1, model=model) for model in (None, "tiny"))
    assert [spec.model for spec in own] == ["tiny", "tiny-early"]
    assert own[0].weights != own[1].weights
    assert [spec.model for spec in given] == ["tiny", "tiny"]


def test_two_entries_run_and_their_records_are_stored(tmp_path):
    specs = run_specs(["sentiment"], ["random", "Reinforce"], 1, timesteps=256, num_held_out=5)
    lines = []
    records = run_all(specs, FinishedRuns(tmp_path), log=lines.append)
    assert [found["trained_tokens"] >= 256 for found in records] == [False, True]
    assert all(-1 <= found["score"] <= 1 for found in records)
    assert FinishedRuns(tmp_path).records == records
    assert [line[:4] for line in lines] == ["[1/2", "[2/2"]


AGENTS = [entry for entry in TRAINED if entry not in ABLATIONS]


@pytest.mark.parametrize("entry", AGENTS)
def test_every_agent_trains_on_a_task_with_turns(entry):
    settings = {**SETTINGS.get(entry, {}), **SMALL[entry]}
    entry = ENTRIES[entry](RunSpec(task="dialogue", entry=entry, timesteps=1, settings=settings))
    assert entry.num_timesteps >= 1
    assert entry.curve.points == []
    assert held_out_scores(entry, "dialogue", range(2)).shape == (2,)


SMALL = {
    "supervised": {"batch_size": 8},
    "Reinforce": {"num_episodes": 8},
    "PPO": {"num_episodes": 8},
    "GRPO": {"num_episodes": 8, "group_size": 4},
    "DQN": {"num_episodes": 8, "batch_size": 8, "gradient_steps": 1},
    "SoftQ": {"num_episodes": 8, "batch_size": 8, "gradient_steps": 1},
    "SB3 PPO": {"n_steps": 4, "batch_size": 256},
}


@pytest.mark.parametrize("entry", [entry for entry in TRAINED if entry != "SB3 PPO"])
def test_an_agent_has_its_defaults_but_for_the_settings_of_its_entry(entry, monkeypatch):
    made = []
    monkeypatch.setattr("textgym_agents.agent.Agent.learn", lambda agent, *args, **kwargs: made.append(agent))
    (spec,) = run_specs(["qa"], [entry], 1)
    ENTRIES[entry](replace(spec, timesteps=1, seed=3))
    settings = dict(ABLATIONS.get(entry, {}))
    policy_kwargs = settings.pop("policy_kwargs", {})
    agent = made[0]
    assert type(agent).__name__ == entry.split(",")[0] or entry == "supervised"
    assert agent.config == type(agent.config)(seed=3, **settings)
    for name, value in policy_kwargs.items():
        assert getattr(agent.policy, name) == value
        assert getattr(agent.policy_class("tiny"), name) != value


@pytest.mark.parametrize(
    "entry",
    ["DQN", pytest.param("GRPO", marks=pytest.mark.slow), pytest.param("SB3 PPO", marks=pytest.mark.slow)],
)
def test_the_evaluations_of_a_learning_curve_do_not_change_the_training(entry, monkeypatch):
    settings = {**SETTINGS.get(entry, {}), **SMALL[entry]}
    spec = RunSpec(task="qa", entry=entry, timesteps=400, num_held_out=3, settings=settings)
    weights, curves = [], []
    for every in (10**9, 100):
        monkeypatch.setattr("entries.EVERY", every)
        trained = ENTRIES[entry](spec)
        weights.append(trained.policy(None).policy.state_dict())
        curves.append(trained.curve.points)
    assert all(torch.equal(weights[1][name], weight) for name, weight in weights[0].items())
    assert curves[0] == []
    tokens = [point[0] for point in curves[1]]
    assert len(tokens) > 1
    # At most one evaluation in each hundred, and only after updates.
    assert [n // 100 for n in tokens] == sorted({n // 100 for n in tokens} - {0})
    if entry == "SB3 PPO":  # rollouts of 4 steps in 64 environments; the last is evaluated too
        assert tokens == [256, 512]


def test_a_learning_curve_is_measured_on_the_first_held_out_cases_of_the_final_evaluation(monkeypatch):
    monkeypatch.setattr("entries.EVERY", 1)
    spec = RunSpec(task="qa", entry="GRPO", timesteps=1, num_held_out=NUM_CASES + 1, settings=SMALL["GRPO"])
    found = run(spec)
    trained = ENTRIES["GRPO"](spec)
    first = held_out_scores(trained, "qa", range(FIRST_CASE, FIRST_CASE + NUM_CASES))
    assert found["learning_curve"] == trained.curve.points == [[trained.num_timesteps, pytest.approx(first.mean())]]
    (sampled,) = run_specs(["qa"], ["sampled LM"], 1, num_held_out=3)
    found = run(sampled)
    assert found["learning_curve"] == [[0, found["score"]]]


def test_the_seconds_of_a_learning_curve_are_evaluation(monkeypatch):
    def measure(curve, policy, num_timesteps):
        curve.seconds += 1_000

    monkeypatch.setattr(LearningCurve, "measure", measure)
    found = run(RunSpec(task="qa", entry="GRPO", timesteps=1, num_held_out=3, settings=SMALL["GRPO"]))
    assert found["training_seconds"] < 0
    assert found["evaluation_seconds"] >= 1_000


def test_a_finished_run_is_reused_only_for_the_same_specification(tmp_path):
    (spec,) = run_specs(["sentiment"], ["random"], 1, num_held_out=2)
    finished = FinishedRuns(tmp_path)
    (first,) = run_all([spec], finished, log=SILENT)
    finished.records[0]["score"] = 123.0
    assert run_all([spec], finished, log=SILENT)[0]["score"] == 123.0
    (again,) = run_all([replace(spec, seed=1)], finished, log=SILENT)
    assert again["score"] != 123.0
    assert len(finished.records) == 2
    assert first["job"]["entry"] == "random"


def test_an_invalid_file_of_runs_raises(tmp_path):
    (tmp_path / "runs.json").write_text('{"a": 1}')
    with pytest.raises(ValueError, match=r"runs\.json is not a list of finished runs; delete it"):
        FinishedRuns(tmp_path)


def test_perplexity_is_that_of_all_tokens_together():
    lm = LMPolicy("tiny")
    chunks = held_out_episodes(Entry(lambda env: lm), "qa", range(CHUNK + 2))
    log_probs = np.concatenate([episodes.log_probs[episodes.mask].numpy() for episodes in chunks])
    assert len(chunks) == 2
    assert perplexity(lm, chunks) == pytest.approx(np.exp(-log_probs.mean()), rel=1e-4)


def test_the_page_has_the_texts_of_the_first_seed_without_control_characters():
    page = markdown(LEADERBOARD)
    assert "       PPO  0.60  PPO, 0\n                  says␛ this" in page
    assert "PPO, 1" not in page


def test_the_page_has_perplexities_relative_to_the_sampled_lm():
    # (2.6 + 2.7) / (2.2 + 2.4)
    assert "| PPO | 1.15 x |" in markdown(LEADERBOARD)


def test_the_held_out_cases_do_not_depend_on_the_seed():
    seen = []

    class Recording(RandomPolicy):
        def act(self, ids, *args, **kwargs):
            seen.append(ids.copy())
            return super().act(ids, *args, **kwargs)

    for seed in (0, 1):
        seen.append("new")
        held_out_scores(Entry(lambda env: Recording(env.unwrapped.num_actions)), "sentiment", range(4), seed=seed)
    starts = [seen[i + 1] for i, entry in enumerate(seen) if isinstance(entry, str)]
    assert np.array_equal(*starts)
    assert len({tuple(row) for row in starts[0].tolist()}) == 4


@pytest.mark.parametrize("task", sorted(set(TIMESTEPS) - set(NO_BEST_TURN)))
def test_the_optimal_policy_reaches_the_optimum(task):
    scores = held_out_scores(ENTRIES["optimum"](RunSpec(task=task, entry="optimum")), task, range(6))
    assert scores == pytest.approx([find_task(task).optimum] * 6)


def test_a_task_without_a_best_turn_has_no_optimal_policy():
    env = task_env("sentiment", 1)
    with pytest.raises(ValueError, match="task 'sentiment' has no best turn"):
        OptimalPolicy(RandomPolicy(env.unwrapped.num_actions), env, "sentiment")


def test_the_optimal_policy_needs_an_eos():
    tokenizer = WordTokenizer(["a", "b"])
    tokenizer.eos_token_id = None
    env = gym.make_vec("TextGen-v0", num_envs=1, tokenizer=tokenizer, prompts=["a"])
    with pytest.raises(ValueError, match="the tokenizer has none"):
        OptimalPolicy(RandomPolicy(env.unwrapped.num_actions), env, "translation")


@pytest.mark.slow
def test_untrained_scores_are_by_task_and_level():
    scores = untrained_scores(["sentiment", "dialogue"], num_cases=2, log=SILENT)
    assert {task: list(levels) for task, levels in scores.items()} == {"sentiment": ["1"], "dialogue": ["1", "2", "3"]}


def test_the_command_writes_the_untrained_scores_of_the_tasks(tmp_path, monkeypatch):
    assert COMMAND["UNTRAINED_SCORES"].is_file()
    monkeypatch.setitem(main.__globals__, "UNTRAINED_SCORES", tmp_path / "scores.json")
    monkeypatch.setitem(main.__globals__, "untrained_scores", lambda: {"qa": {"1": 0.5}})
    main(["--untrained-scores"])
    assert json.loads((tmp_path / "scores.json").read_text()) == {"qa": {"1": 0.5}}


def test_the_command_adds_the_reference_entries_and_writes_three_files(tmp_path, capsys):
    arguments = ["--tasks", "sentiment", "--agents", "random", "--seeds", "1", "--held-out", "2", "--processes", "1"]
    main([*arguments, "--work", str(tmp_path / "work"), "--out", str(tmp_path)])
    assert {path.name for path in tmp_path.iterdir()} == {
        "leaderboard.json", "leaderboard.md", "leaderboard.png", "work",
    }  # fmt: skip
    written = json.loads((tmp_path / "leaderboard.json").read_text())
    assert set(written["tasks"]["sentiment"]["entries"]) == {"random", "sampled LM"}
    assert "torch" in written["versions"]
    assert "random closes" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tasks", "chess"], "invalid choice: 'chess'"),
        (["--seeds", "11"], "invalid choice: 11"),
        (["--processes", "0"], "--processes must be at least 1, got 0"),
    ],
)
def test_the_command_rejects_invalid_arguments(arguments, message, capsys):
    with pytest.raises(SystemExit):
        main(arguments)
    assert message in capsys.readouterr().err


def test_without_the_extras_the_command_says_what_to_install():
    code = (
        "import runpy, sys; sys.modules['stable_baselines3'] = None; runpy.run_path(sys.argv[1], run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code, str(LEADERBOARD_FOLDER)], capture_output=True, text=True)
    assert "pip install 'textgym[agents,sb3,scorers]'" in done.stderr


@pytest.mark.slow
def test_two_processes_run_the_command(tmp_path):
    arguments = ["--tasks", "sentiment", "--agents", "random", "--seeds", "1", "--held-out", "2"]
    command = [sys.executable, str(LEADERBOARD_FOLDER), *arguments, "--work", str(tmp_path), "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(FinishedRuns(tmp_path).records) == 2


def test_the_published_leaderboard_is_the_page_of_its_json():
    published = json.loads((ROOT / "docs/leaderboard.json").read_text(encoding="utf-8"))
    assert (ROOT / "docs/leaderboard.md").read_text(encoding="utf-8") == markdown(published)


def test_a_run_specification_is_stored_whole():
    names = {field.name for field in fields(RunSpec)}
    assert names == {"task", "entry", "seed", "timesteps", "num_held_out", "model", "weights", "settings"}
    assert set(asdict(RunSpec(task="qa", entry="PPO"))) == names
