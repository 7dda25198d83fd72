"""Compare agents on the tasks, between the untrained language model and the known optimum.

    python benchmarks/leaderboard [--tasks qa summary] [--agents PPO GRPO] [--seeds 5] [--out docs]

For each task it evaluates, on the same held-out cases: random tokens; the embedded LM greedy, sampled and as best of
8; the LM trained by behaviour cloning of the optimal policy ("supervised"), Reinforce, PPO, GRPO, DQN, SoftQ and
Stable-Baselines3's PPO; the optimal policy. Trainings are also evaluated on the way, every 2,000 tokens, which tells
the tokens that an agent needs to close 50 % and 75 % of the gap. It writes leaderboard.json, leaderboard.md and
leaderboard.png. An interrupted leaderboard continues where it stopped.

The runs behind docs/leaderboard.md are in benchmarks/leaderboard/finished: with ``--work`` that folder, only new
entries and seeds are run. A stored run does not say which code made it: delete those of an agent that has changed.
"""

import argparse
import json
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from textgym import tasks
from textgym.errors import install_hint

try:
    import stable_baselines3  # noqa: F401
except ImportError as error:
    raise ImportError(f"the leaderboard needs the extras: {install_hint('agents,sb3,scorers')}") from error

import torch

from entries import ABLATIONS, ENTRIES, TIMESTEPS
from report import BASELINE, STUDENT_T, summarise, versions, write_report
from runs import FinishedRuns, run_all, run_specs, untrained_scores

COMMAND = "python benchmarks/leaderboard"
REFERENCES = (BASELINE, "optimum")
"""Entries that always take part: the ends of the normalised score."""

UNTRAINED_SCORES = Path(tasks.__file__).parent / "untrained_scores.json"
"""The zero of ``info["score_normalised"]``."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Execute the missing runs and write the report; ``arguments`` are by default those of the program."""
    arguments = sys.argv[1:] if arguments is None else arguments
    args = parse(arguments)
    torch.set_num_threads(1)  # fastest for a model this small
    if args.untrained_scores:
        UNTRAINED_SCORES.write_text(json.dumps(untrained_scores(), indent=1) + "\n", encoding="utf-8")
        print(f"wrote {UNTRAINED_SCORES}")
        return
    start = time.perf_counter()
    names = [name for name in ENTRIES if name in (*args.agents, *REFERENCES)]
    specs = run_specs(
        args.tasks, names, args.seeds, timesteps=args.timesteps, num_held_out=args.held_out, model=args.model
    )
    print(f"{len(specs)} runs, {args.processes} at a time, stored in {args.work}", flush=True)
    records = run_all(specs, FinishedRuns(args.work), args.processes, log=lambda line: print(line, flush=True))
    leaderboard = {
        "command": f"{COMMAND} {shlex.join(arguments)}".strip(),
        "model": ", ".join(dict.fromkeys(spec.model for spec in specs)),
        "weights": specs[0].weights,
        "num_seeds": args.seeds,
        "versions": versions(),
        "tasks": summarise(records),
    }
    write_report(args.out, leaderboard)
    for name, task in leaderboard["tasks"].items():
        shares = {n: e["score_normalised"] for n, e in task["entries"].items() if n not in REFERENCES}
        if shares:
            best = max(shares, key=lambda n: shares[n] or 0.0)
            print(f"{name:11} {best} closes {shares[best]:.0%} of the gap")
    print(f"{(time.perf_counter() - start) / 60:.1f} minutes; wrote {args.out / 'leaderboard.md'}, .json and .png")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=COMMAND, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--tasks", nargs="+", choices=list(TIMESTEPS), default=[name for name in TIMESTEPS if name != "quality"],
        help="default: all but quality, which starts from another model",
    )  # fmt: skip
    parser.add_argument(
        "--agents", nargs="+", choices=list(ENTRIES),
        default=[name for name in ENTRIES if name not in ABLATIONS],
        help="entries besides the sampled LM and the optimum (default: all but those that undo a default)",
    )  # fmt: skip
    parser.add_argument("--seeds", type=int, default=5, choices=range(1, len(STUDENT_T) + 2), metavar="N")
    parser.add_argument("--timesteps", type=int, help="tokens per training (default: each task's own)")
    parser.add_argument("--held-out", type=int, default=192, help="number of held-out cases (default: %(default)s)")
    parser.add_argument("--processes", type=int, default=2, help="runs at a time (default: %(default)s)")
    parser.add_argument("--model", help="language model to start from (default: each task's own)")
    parser.add_argument(
        "--work", type=Path, default=Path("runs/leaderboard"),
        help="folder of finished runs, which are reused (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=Path, default=Path("runs/leaderboard"), help="folder of the report (default: %(default)s)"
    )
    parser.add_argument(
        "--untrained-scores", action="store_true",
        help="only measure the untrained LM by task and level, and write the zero of score_normalised",
    )  # fmt: skip
    args = parser.parse_args(arguments)
    for name in ("timesteps", "held_out", "processes"):
        value = getattr(args, name)
        if value is not None and value < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1, got {value}")
    return args


if __name__ == "__main__":
    main()
