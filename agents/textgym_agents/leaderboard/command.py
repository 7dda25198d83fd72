"""The command line of the leaderboard."""

import argparse
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from textgym_agents.leaderboard.entries import ENTRIES
from textgym_agents.leaderboard.report import write_report
from textgym_agents.leaderboard.running import RunBook, jobs_of, run_all
from textgym_agents.leaderboard.settings import TIMESTEPS
from textgym_agents.leaderboard.summary import BASELINE, STUDENT_T, summarised, versions
from textgym_agents.leaderboard.untrained import PATH, untrained_scores, write_untrained_scores

__all__ = ["main"]

COMMAND = "python -m textgym_agents.leaderboard"
SCALE = (BASELINE, "optimum")
"""Entries that always take part: between them the others are placed."""


def main(arguments: Sequence[str] | None = None, description: str | None = __doc__) -> None:
    """Run what is left to run, and write the report.

    Args:
        arguments: Of the command line, by default the program's.
        description: Of the help text.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    args = _parsed(arguments, description)
    torch.set_num_threads(1)  # the fastest choice for a model this small
    if args.untrained_scores:
        write_untrained_scores(untrained_scores())
        print(f"Written: {PATH}")
        return
    start = time.perf_counter()
    names = [name for name in ENTRIES if name in (*args.agents, *SCALE)]
    jobs = jobs_of(
        args.tasks, names, args.seeds, timesteps=args.timesteps, num_held_out=args.held_out, model=args.model
    )
    print(f"{len(jobs)} runs, {args.processes} at a time, kept in {args.work}", flush=True)
    records = run_all(jobs, RunBook(args.work), args.processes, tell=lambda line: print(line, flush=True))
    leaderboard = {
        "command": f"{COMMAND} {shlex.join(arguments)}".strip(),
        "model": args.model,
        "weights": jobs[0].weights,
        "num_seeds": args.seeds,
        "versions": versions(),
        "tasks": summarised(records),
    }
    write_report(args.out, leaderboard)
    for name, task in leaderboard["tasks"].items():
        shares = {n: e["score_normalised"] for n, e in task["entries"].items() if n not in SCALE}
        if shares:
            best = max(shares, key=lambda n: shares[n] or 0.0)
            print(f"{name:11} {best} closes {shares[best]:.0%} of the gap")
    print(f"{(time.perf_counter() - start) / 60:.1f} minutes. Written: {args.out / 'leaderboard.md'}, .json, .png")


def _parsed(arguments: Sequence[str], description: str | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=COMMAND, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", nargs="+", choices=list(TIMESTEPS), default=list(TIMESTEPS))
    parser.add_argument(
        "--agents", nargs="+", choices=list(ENTRIES), default=list(ENTRIES),
        help="who takes part beside the sampled LM and the optimum (default: all)",
    )  # fmt: skip
    parser.add_argument("--seeds", type=int, default=3, choices=range(1, len(STUDENT_T) + 2), metavar="N")
    parser.add_argument("--timesteps", type=int, help="tokens per training (default: each task's own)")
    parser.add_argument("--held-out", type=int, default=192, help="cases to evaluate on (default: %(default)s)")
    parser.add_argument("--processes", type=int, default=2, help="runs at a time (default: %(default)s)")
    parser.add_argument("--model", default="tiny", help="language model to start from (default: %(default)s)")
    parser.add_argument(
        "--work", type=Path, default=Path("runs/leaderboard"),
        help="folder of finished runs, which are not run again (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=Path, default=Path("runs/leaderboard"), help="folder of the report (default: %(default)s)"
    )
    parser.add_argument(
        "--untrained-scores", action="store_true",
        help="measure the untrained LM by task and level instead, and write what score_normalised is relative to",
    )  # fmt: skip
    args = parser.parse_args(arguments)
    for name in ("timesteps", "held_out", "processes"):
        value = getattr(args, name)
        if value is not None and value < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1, got {value}")
    return args
