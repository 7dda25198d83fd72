"""Tokens of training until 50 % and 75 % of the gap are closed: textgym's GRPO beside TRL's GRPOTrainer.

    OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 python benchmarks/sample_efficiency.py [--tasks qa] [--sampled] [--every 2000]

Needs the extra `bench`. Both sides train the same weights on the same prompts of a task with the same reward, token
budget of a text, temperature and KL coefficient, in float32. Tokens of completions count, EOS included. Every 500
tokens the policy plays held-out cases, greedily or, with --sampled, as it was trained; of these evaluations --every
counts every n-th. Tokens to a share of the gap between the sampled LM and the optimum are those of the first evaluation
that closes it, infinity in the median over seeds where none does; a run ends soon after 75 %, or when its budget is
spent.

Ours has its default settings, except for the best of three learning rates. TRL's has the best of three and then, at
that rate, the best of four batch sizes, at a constant rate, and otherwise TRL's defaults, such as groups of 8. Settings
are chosen by the tokens to 75 % on other held-out cases and with another seed than those that are reported. Finished
runs are kept in --runs, so that an interrupted comparison continues.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
import transformers
import trl
from datasets import Dataset
from transformers import AutoTokenizer, TrainerCallback
from trl import GRPOTrainer

from leaderboard.learning_curve import LearningCurve, median_tokens, play, scores_of, tokens_to
from textgym.lm import load_lm
from textgym.scorers import as_reward_func
from textgym.tasks import find_task, task_prompts
from textgym.tokenizers import embedded_lm_path
from textgym_agents import GRPO, PPO, LMPolicy, env_seed
from textgym_agents.online import OnlineAgent
from trl_grpo import quiet, trl_config

TASKS = ("sentiment", "translation", "qa", "summary")
"""Tasks of one turn: TRL generates a completion of a prompt."""
AGENTS: dict[str, type[OnlineAgent]] = {"GRPO": GRPO, "PPO": PPO}
LEARNING_RATES = (5e-4, 1e-3, 2.5e-4)
TRL_LEARNING_RATES = (3e-4, 1e-3, 1e-4)
"""Candidates, the likeliest first: a candidate ends when it cannot be the best any more."""
TRL_BATCH_SIZES = (32, 16, 64, 128)
"""Completions per update; learning rates are compared at the first."""
SHARES = (0.5, 0.75)
"""Shares of the gap to which tokens are counted."""

EVERY = (500, 1_000, 2_000)
"""Tokens between two evaluations: the first are measured, the others are found among these."""
NUM_CASES = 128
CHOICE_CASES, REPORT_CASES = 150, 501
"""First of the held-out cases for the choice of settings, and of those for the report."""
CHOICE_SEED = 100
NUM_PROMPTS = 8_192
"""Prompts of TRL's data set, drawn as an environment draws them."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """Everything that determines a training; a finished one is reused only if all of it is equal."""

    side: str
    """``"TRL"``, or the name of an agent."""
    task: str
    seed: int
    learning_rate: float
    batch_size: int | None
    """Completions per update; None for the agent's default."""
    first_case: int
    budget: int
    """Tokens after which it ends."""
    greedy: bool
    """Whether the evaluations decode greedily or sample."""
    defaults: str
    """The agent's default settings, or the version of TRL."""


Curve = list[list[float]]
"""``[tokens, mean score]`` of each evaluation."""


def thinned(curve: Curve, every: int) -> Curve:
    """Return the first point past each multiple of a number of tokens.

    >>> thinned([[500, 0.1], [1100, 0.2], [1900, 0.3], [2100, 0.4]], 1000)
    [[1100, 0.2], [2100, 0.4]]
    """
    before = [0, *(tokens for tokens, _ in curve)]
    return [point for last, point in zip(before, curve, strict=False) if point[0] // every > last // every]


def is_reached(goal: float, curve: Curve) -> bool:
    """Return whether the evaluations reach a score, also if only those every 2,000 tokens count."""
    return tokens_to(goal, thinned(curve, EVERY[-1])) is not None


def train_ours(run: Run, curve: LearningCurve, goal: float) -> None:
    """Train an agent until the curve reaches a score or the budget is spent."""
    settings = {} if run.batch_size is None else {"num_episodes": run.batch_size}
    agent = AGENTS[run.side](
        "tiny", "TextGen-v0", env_kwargs={"task": run.task}, learning_rate=run.learning_rate, seed=run.seed, **settings
    )
    agent.learn(run.budget, callback=[curve, lambda agent, metrics: not is_reached(goal, curve.points)])


def train_trl(run: Run, curve: LearningCurve, goal: float) -> None:
    """Train with TRL until the curve reaches a score or the budget is spent."""
    task = find_task(run.task)
    tokenizer = AutoTokenizer.from_pretrained(embedded_lm_path("tiny"), trust_remote_code=False)
    stop = _TRLCurve(run, curve, goal)
    score = as_reward_func(task.scorer(), tokenizer)

    def reward(completion_ids: list[list[int]], **columns: Any) -> list[float | None]:
        stop.num_tokens += sum(map(len, completion_ids))
        return score(completion_ids=completion_ids, **columns)

    with quiet(), tempfile.TemporaryDirectory() as folder:
        trainer = GRPOTrainer(
            model=load_lm("tiny"),
            reward_funcs=reward,
            args=trl_config(
                folder,
                max_completion_length=task.keywords["max_new_tokens"],
                per_device_train_batch_size=run.batch_size,
                max_steps=run.budget,  # at least a token each: the callback ends the training
                beta=task.keywords["suggested_kl_coef"],
                learning_rate=run.learning_rate,
                seed=run.seed,
            ),
            train_dataset=Dataset.from_list(training_rows(run.task, run.seed)),
            processing_class=tokenizer,
            callbacks=[stop],
        )
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train()


class _TRLCurve(TrainerCallback):
    """Evaluates TRL's policy after its updates, and ends the training."""

    def __init__(self, run: Run, curve: LearningCurve, goal: float) -> None:
        self.num_tokens = 0
        self._run, self._curve, self._goal = run, curve, goal
        self._policy = LMPolicy("tiny")  # a copy of TRL's model would still call the original's forward

    def on_step_end(self, args: Any, state: Any, control: transformers.TrainerControl, **kwargs: Any) -> None:
        """Evaluate if it is time to."""
        self._policy.model.load_state_dict(kwargs["model"].state_dict())
        self._curve.measure(self._policy, self.num_tokens)
        is_done = self.num_tokens >= self._run.budget
        control.should_training_stop = is_done or is_reached(self._goal, self._curve.points)


def training_rows(task: str, seed: int) -> list[dict[str, Any]]:
    """Return rows of TRL's data set, drawn from the training prompts of all levels."""
    prompts, rng = task_prompts(task), np.random.default_rng(seed)
    samples = [prompts.draw(rng) for _ in range(NUM_PROMPTS)]
    return [{**sample.metadata, "prompt": sample.prompt, "references": list(sample.references)} for sample in samples]


def held_out_env(task: str) -> gym.vector.VectorEnv[Any, Any, Any]:
    """Return the environment of the evaluations."""
    return gym.make_vec("TextGen-v0", num_envs=NUM_CASES, autoreset_mode="SameStep", task=task, split="eval")


def untrained_score(task: str, first_case: int, num_samples: int = 5) -> float:
    """Return the mean score of the sampled LM on the cases of a curve."""
    env, policy, cases = held_out_env(task), LMPolicy("tiny"), range(first_case, first_case + NUM_CASES)
    scores = [
        scores_of(play(env, policy, cases, env_seed(seed), torch.Generator().manual_seed(seed))).mean()
        for seed in range(num_samples)
    ]
    return float(np.mean(scores))


class Comparison:
    """Runs trainings that are not finished, and computes tokens to a share of the gap.

    Args:
        path: File of finished runs, one JSON object a line.
        budget: Tokens after which a training ends.
        greedy: Whether the evaluations decode greedily or sample.
        log: Called with a line per training.
    """

    def __init__(
        self, path: Path, budget: int, *, greedy: bool = True, log: Callable[[str], None] = lambda line: None
    ) -> None:
        self._path, self._budget, self._greedy, self._log = path, budget, greedy, log
        self._curves: dict[Run, Curve] = {}
        self._low: dict[tuple[str, int], float] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file():
            for line in path.read_text(encoding="utf-8").splitlines():
                record = json.loads(line)
                self._curves[Run(**record["run"])] = record["curve"]

    def goal(self, run: Run, share: float) -> float:
        """Return the score at which a share of the gap is closed."""
        key = run.task, run.first_case
        if key not in self._low:
            self._low[key] = untrained_score(*key)
        return self._low[key] + share * (find_task(run.task).optimum - self._low[key])

    def curve(self, run: Run) -> Curve:
        """Return the learning curve of a training, which is executed if it is not finished."""
        if run not in self._curves:
            cases = range(run.first_case, run.first_case + NUM_CASES)
            curve = LearningCurve(lambda: held_out_env(run.task), cases, run.seed, every=EVERY[0], greedy=run.greedy)
            start = time.process_time()
            (train_trl if run.side == "TRL" else train_ours)(run, curve, self.goal(run, SHARES[-1]))
            seconds = time.process_time() - start
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"run": asdict(run), "curve": curve.points, "seconds": round(seconds, 1)}) + "\n")
            self._curves[run] = curve.points
            tokens = [self.tokens([run], share) for share in SHARES]
            self._log(f"{replace(run, defaults='')}: {tokens}, {seconds:.0f} s")
        return self._curves[run]

    def tokens(self, runs: Iterable[Run], share: float, every: int = EVERY[0]) -> float:
        """Return the median tokens over seeds until a share of the gap is closed, if evaluated every so many tokens."""
        return median_tokens([tokens_to(self.goal(run, share), thinned(self.curve(run), every)) for run in runs])

    def best(self, side: str, task: str) -> Run:
        """Return the settings with the fewest tokens to 75 %, or to 50 % or with the best last score in a tie."""
        best = self.first(side, task)
        least = self._rank(best)
        changes: list[dict[str, Any]] = [{"learning_rate": rate} for rate in self._rates(side)[1:]]
        if side == "TRL":
            changes += [{"batch_size": size} for size in TRL_BATCH_SIZES[1:]]
        for change in changes:
            candidate = replace(best, **change)
            # One that has not got there after as many tokens as the best has lost.
            rank = self._rank(replace(candidate, budget=int(min(self._budget, least[0]))))
            if rank < least:
                best, least = candidate, rank
        return best

    def first(self, side: str, task: str) -> Run:
        """Return the first candidate."""
        return Run(
            side=side,
            task=task,
            seed=CHOICE_SEED,
            learning_rate=self._rates(side)[0],
            batch_size=TRL_BATCH_SIZES[0] if side == "TRL" else None,
            first_case=CHOICE_CASES,
            budget=self._budget,
            greedy=self._greedy,
            defaults=trl.__version__ if side == "TRL" else repr(AGENTS[side].config_class()),
        )

    @staticmethod
    def _rates(side: str) -> tuple[float, ...]:
        return TRL_LEARNING_RATES if side == "TRL" else LEARNING_RATES

    def _rank(self, run: Run) -> tuple[float, float, float]:
        """Return what the best settings have least of."""
        last_score = self.curve(run)[-1][1] if self.curve(run) else -math.inf
        return self.tokens([run], 0.75), self.tokens([run], 0.5), -last_score

    def row(self, agent: str, task: str, seeds: Iterable[int], every: int = EVERY[0]) -> str:
        """Return the Markdown row of a task: tokens of both sides, their ratios, and the settings."""
        tokens: list[list[float]] = []
        settings = []
        for side in (agent, "TRL"):
            best = self.best(side, task)
            runs = [replace(best, seed=seed, first_case=REPORT_CASES) for seed in seeds]
            tokens.append([self.tokens(runs, share, every) for share in SHARES])
            batch = "" if best.batch_size is None else f", {best.batch_size}"
            settings.append(f"{best.learning_rate:g}{batch}")
        ratios = [_ratio(ours, theirs, self._budget) for ours, theirs in zip(*tokens, strict=True)]
        ours, theirs = [", ".join(map(_count, by_share)) for by_share in tokens]
        return f"| {task} | {ours} | {theirs} | {', '.join(ratios)} | {' | '.join(settings)} |"


def _count(tokens: float) -> str:
    return "-" if math.isinf(tokens) else f"{tokens:,.0f}"


def _ratio(ours: float, theirs: float, budget: int) -> str:
    """Return ours / theirs, as a bound if one of them is not reached within the budget.

    >>> _ratio(4_000, 8_000, 60_000), _ratio(6_000, math.inf, 60_000), _ratio(math.inf, math.inf, 60_000)
    ('0.50', '< 0.10', '-')
    """
    if math.isinf(ours):
        return "-" if math.isinf(theirs) else f"> {budget / theirs:.2f}"
    return f"< {ours / budget:.2f}" if math.isinf(theirs) else f"{ours / theirs:.2f}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a row per task."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    parser.add_argument("--agent", choices=tuple(AGENTS), default="GRPO")
    parser.add_argument("--seeds", type=int, default=5, help="runs to report (default: %(default)s)")
    parser.add_argument("--sampled", action="store_true", help="sample in evaluations, instead of greedy decoding")
    parser.add_argument(
        "--every", type=int, choices=EVERY, default=EVERY[-1],
        help="tokens between the evaluations to report (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--budget", type=int, default=30_000, help="tokens of a run at most (default: %(default)s)")
    parser.add_argument("--runs", type=Path, default=Path("runs/sample_efficiency.jsonl"), help="file of finished runs")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    comparison = Comparison(
        args.runs, args.budget, greedy=not args.sampled, log=lambda line: print(line, file=sys.stderr, flush=True)
    )
    rows = [comparison.row(args.agent, task, range(args.seeds), args.every) for task in args.tasks]
    print(f"Tokens to 50 % and 75 % of the gap, median of {args.seeds} seeds; - if more than {args.budget:,}.\n")
    print(f"| | {args.agent} | TRL | ratio | rate of {args.agent} | rate and batch of TRL |")
    print("|---" * 6 + "|", *rows, sep="\n")


if __name__ == "__main__":
    main()
