"""The comparison with TRL: both sides see the same, the best settings are chosen, finished runs are reused."""

import math
import sys

import pytest

pytest.importorskip("trl")

from fixtures import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
from transformers import AutoTokenizer

import sample_efficiency
from sample_efficiency import CHOICE_CASES, EVERY, REPORT_CASES, TASKS, Comparison, is_reached, thinned
from textgym.scorers import as_reward_func
from textgym.tasks import find_task
from textgym.tokenizers import embedded_lm_path


@pytest.fixture
def trained(monkeypatch):
    """Fake trainings, whose scores rise faster with some settings; the list of them."""
    runs = []

    def train(run, curve, goal):
        runs.append(run)
        slope = {1e-3: 0.8, 5e-4: 0.5, 3e-4: 0.5, 2.5e-4: 0.1, 1e-4: 0.1}[run.learning_rate] * {16: 2.0, 64: 0.5}.get(
            run.batch_size, 1.0
        )
        for tokens in range(500, run.budget + 500, 500):
            curve.points.append([tokens, slope * tokens / 10_000])
            if is_reached(goal, curve.points):
                return

    monkeypatch.setattr(sample_efficiency, "train_ours", train)
    monkeypatch.setattr(sample_efficiency, "train_trl", train)
    monkeypatch.setattr(sample_efficiency, "untrained_score", lambda task, first_case: 0.0)
    return runs


@pytest.mark.parametrize("task", TASKS)
def test_trl_sees_the_prompts_and_rewards_of_the_environment(task):
    tokenizer = AutoTokenizer.from_pretrained(embedded_lm_path("tiny"))
    rows = sample_efficiency.training_rows(task, seed=0)[:4]
    env = sample_efficiency.held_out_env(task).unwrapped
    assert [tokenizer(row["prompt"])["input_ids"] for row in rows] == [
        env.tokenizer.encode(row["prompt"]) for row in rows
    ]
    assert {len(env.tokenizer.encode(row["prompt"])) <= env.config.max_prompt_tokens for row in rows} == {True}
    if find_task(task).target is None:
        return
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    completions = [" " + row["references"][0] for row in rows]
    ids = [tokenizer(completion)["input_ids"] for completion in completions]
    rewards = as_reward_func(find_task(task).scorer(), tokenizer)(
        prompts=columns.pop("prompt"), completions=completions, completion_ids=ids, **columns
    )
    assert rewards == pytest.approx([1.0] * 4)


def test_other_seeds_draw_other_prompts():
    first, again, other = (sample_efficiency.training_rows("qa", seed) for seed in (0, 0, 1))
    assert first == again != other


def test_coarser_evaluations_are_the_first_past_each_multiple():
    curve = [[700, 0.9], [1100, 0.2], [2500, 0.3], [3900, 0.7], [4001, 0.6]]
    assert thinned(curve, 1_000) == [[1100, 0.2], [2500, 0.3], [3900, 0.7], [4001, 0.6]]
    assert thinned(curve, 2_000) == [[2500, 0.3], [4001, 0.6]]
    assert is_reached(0.6, curve)
    assert not is_reached(0.6, curve[:4])


def test_the_best_settings_get_to_three_quarters_with_the_fewest_tokens(trained, tmp_path):
    comparison = Comparison(tmp_path / "runs.jsonl", 20_000)
    best = comparison.best("GRPO", "qa")
    assert (best.learning_rate, best.batch_size) == (1e-3, None)
    best = comparison.best("TRL", "qa")
    assert (best.learning_rate, best.batch_size, best.budget) == (1e-3, 16, 20_000)
    assert {(run.first_case, run.seed) for run in trained} == {(CHOICE_CASES, 100)}
    # 0.75 after 15,000 tokens, 9,500 at the second rate, which limits the third, and 5,000 in batches of 16.
    assert [(run.batch_size, run.budget) for run in trained if run.side == "TRL"] == [
        (32, 20_000), (32, 15_000), (32, 9_500), (16, 9_500), (64, 5_000), (128, 5_000),
    ]  # fmt: skip


def test_a_row_has_medians_ratios_and_settings_of_runs_on_other_cases(trained, tmp_path):
    row = Comparison(tmp_path / "runs.jsonl", 20_000).row("GRPO", "qa", range(3))
    # Scores of 0.5 and 0.75 at 0.00008 and 0.00016 per token.
    assert row == "| qa | 6,500, 9,500 | 3,500, 5,000 | 1.86, 1.90 | 0.001 | 0.001, 16 |"
    reported = [(run.side, run.seed) for run in trained if run.first_case == REPORT_CASES]
    assert reported == [(side, seed) for side in ("GRPO", "TRL") for seed in range(3)]


def test_a_row_of_coarser_evaluations_needs_no_other_runs(trained, tmp_path):
    Comparison(tmp_path / "runs.jsonl", 20_000).row("GRPO", "qa", range(3))
    trained.clear()
    row = Comparison(tmp_path / "runs.jsonl", 20_000).row("GRPO", "qa", range(3), every=EVERY[-1])
    assert row.startswith("| qa | 8,000, 10,000 | 4,000, 6,000 | 2.00, 1.67 |")
    assert trained == []


def test_what_is_not_reached_within_the_budget_bounds_the_ratio(trained, tmp_path):
    row = Comparison(tmp_path / "runs.jsonl", 8_000).row("GRPO", "qa", range(1))
    assert row.startswith("| qa | 6,500, - | 3,500, 5,000 | 1.86, > 1.60 |")
    assert sample_efficiency._ratio(4_000, math.inf, 8_000) == "< 0.50"
    assert sample_efficiency._ratio(math.inf, math.inf, 8_000) == "-"


@pytest.mark.slow
@pytest.mark.parametrize(("side", "greedy"), [("GRPO", True), ("PPO", False), ("TRL", True), ("TRL", False)])
def test_a_training_is_evaluated_until_its_budget_is_spent(side, greedy, tmp_path, monkeypatch):
    monkeypatch.setattr(sample_efficiency, "NUM_CASES", 4)
    comparison = Comparison(tmp_path / "runs.jsonl", 1_000, greedy=greedy)
    run = sample_efficiency.replace(comparison.first("TRL", "sentiment"), side=side, batch_size=16)
    curve = comparison.curve(run)
    assert [tokens // 500 for tokens, _ in curve] == [1, 2]
    assert curve[-1][0] < 1_000 + 16 * 24
    assert Comparison(tmp_path / "runs.jsonl", 1_000, greedy=greedy).curve(run) == curve


def test_the_command_prints_a_row_per_task(trained, tmp_path, capsys):
    sample_efficiency.main(["--tasks", "qa", "summary", "--seeds", "1", "--runs", str(tmp_path / "runs.jsonl")])
    out = capsys.readouterr().out
    assert "| | GRPO | TRL | ratio | rate of GRPO | rate and batch of TRL |" in out
    assert [line.split(" | ")[0] for line in out.splitlines()[-2:]] == ["| qa", "| summary"]
