"""One run is a task, an entry and a seed: making the entry, evaluating it, and keeping what came out."""

import hashlib
import json
import multiprocessing
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from textgym.tasks import find_task
from textgym.tokenizers import EMBEDDED_LMS, embedded_lm_path
from textgym_agents.leaderboard.entries import ENTRIES, NO_BEST_TURN, Entry, RunSpec, task_env
from textgym_agents.leaderboard.settings import TIMESTEPS, settings_of
from textgym_agents.rollout import collect, env_seed

__all__ = ["Job", "RunBook", "held_out_scores", "jobs_of", "run", "run_all"]

FIRST_CASE = 501
"""Where the held-out cases begin in the split ``"eval"``; on those before, the settings were chosen. A multiple of 3,
so that the first is of level 1."""
CHUNK = 64
"""Held-out cases that are played at a time; best-of-n holds n times as many texts."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """All that decides a run, so that a run that was made under another job is not mistaken for this one's."""

    task: str
    entry: str
    seed: int
    timesteps: int
    """Tokens to train on; 0 for those that do not train."""
    num_held_out: int
    """Cases of the split ``"eval"``, from ``FIRST_CASE`` on."""
    model: str = "tiny"
    weights: str | None = None
    """Of the model: the first 16 digits of the SHA-256 of its file, where it has one."""
    settings: dict[str, Any] = field(default_factory=dict)


def jobs_of(
    tasks: Iterable[str],
    entries: Sequence[str],
    num_seeds: int,
    *,
    timesteps: int | None = None,
    num_held_out: int = 192,
    model: str = "tiny",
) -> list[Job]:
    """Return the jobs of a leaderboard, task by task.

    Args:
        tasks: Names.
        entries: Names; an optimum that cannot be played is left out.
        num_seeds: Runs per task and entry.
        timesteps: Tokens per training, in place of the tasks' own.
        num_held_out: Cases to be evaluated on.
        model: Whom all start from.
    """
    weights = _digest(model)
    return [
        Job(
            task=task,
            entry=entry,
            seed=seed,
            timesteps=(TIMESTEPS[task] if timesteps is None else timesteps) if settings_of(entry, task) else 0,
            num_held_out=num_held_out,
            model=model,
            weights=weights,
            settings=settings_of(entry, task),
        )
        for task in tasks
        for entry in entries
        for seed in range(num_seeds)
        if entry != "optimum" or task not in NO_BEST_TURN
    ]


def run(job: Job) -> dict[str, Any]:
    """Make the entry, evaluate it, and return the record: the job and what was measured.

    Raises:
        FloatingPointError: If the training diverges.
    """
    start = time.perf_counter()
    entry = ENTRIES[job.entry](RunSpec(job.task, job.seed, max(job.timesteps, 1), job.model, job.settings))
    made = time.perf_counter()
    cases = range(FIRST_CASE, FIRST_CASE + job.num_held_out)
    scores = held_out_scores(entry, job.task, cases, model=job.model, seed=job.seed)
    num_levels = find_task(job.task).num_levels
    return {
        "job": asdict(job),
        "score": float(scores.mean()),
        "score_by_level": {str(k + 1): float(scores[k::num_levels].mean()) for k in range(num_levels)},
        "trained_tokens": entry.num_timesteps,
        "training_seconds": round(made - start, 1),
        "evaluation_seconds": round(time.perf_counter() - made, 1),
    }


def held_out_scores(
    entry: Entry, task: str, cases: Sequence[int], *, model: str = "tiny", seed: int = 0, **keywords: Any
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return (K,) float64, the scores of held-out cases, each played once.

    Args:
        entry: Makes the policy.
        task: A name.
        cases: K indices into the split ``"eval"``, in which the levels take turns.
        model: Whose tokenizer it is.
        seed: Of the sampling and of the simulated user.
        **keywords: Further ones of the environment.
    """
    generator = torch.Generator().manual_seed(seed)
    scores: list[float] = []
    for start in range(0, len(cases), CHUNK):
        chunk = list(cases[start : start + CHUNK])
        env = task_env(task, len(chunk), model, "eval", **keywords)
        episodes = collect(
            env,
            entry.policy(env),
            len(chunk),
            seed=env_seed(seed) + start,
            options={"index": chunk},
            generator=generator,
        )
        scores += [info["score"] for info in episodes.infos]
    return np.array(scores)


class RunBook:
    """The finished runs of a folder, so that a leaderboard that was interrupted goes on where it was.

    Args:
        folder: Made if it is not there; the runs are in its ``runs.json``.

    Raises:
        ValueError: If ``runs.json`` is not what this class writes.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "runs.json"
        folder.mkdir(parents=True, exist_ok=True)
        self.records: list[dict[str, Any]] = []
        if self.path.is_file():
            try:
                self.records = json.loads(self.path.read_text(encoding="utf-8"))
                _ = [record["job"] for record in self.records]
            except (ValueError, TypeError, KeyError) as error:
                raise ValueError(f"{self.path} is no list of runs; remove it to begin anew ({error})") from error

    def find(self, job: Job) -> dict[str, Any] | None:
        """Return the record of a job, None where it has not been run."""
        wanted = asdict(job)
        return next((record for record in self.records if record["job"] == wanted), None)

    def add(self, record: dict[str, Any]) -> None:
        """Keep a record; the file is replaced at once and whole."""
        self.records.append(record)
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps(self.records, indent=1) + "\n", encoding="utf-8")
        part.replace(self.path)


def run_all(
    jobs: Sequence[Job], book: RunBook, num_processes: int = 1, tell: Callable[[str], None] = print
) -> list[dict[str, Any]]:
    """Run the jobs that are not in the book, and return the records of all, in the order of the jobs.

    Args:
        jobs: What to run.
        book: Where finished runs are, and are kept.
        num_processes: How many run at a time, each with one thread; 1 runs them in this process.
        tell: Is given a line per finished run.
    """
    left = [job for job in jobs if book.find(job) is None]
    if len(left) < len(jobs):
        tell(f"{len(jobs) - len(left)} of {len(jobs)} runs are in {book.path}")
    start = time.perf_counter()
    for done, record in enumerate(_records(left, num_processes), start=1):
        book.add(record)
        job, seconds = record["job"], record["training_seconds"] + record["evaluation_seconds"]
        tell(
            f"[{done}/{len(left)}, {(time.perf_counter() - start) / 60:4.1f} min] {job['task']:11} "
            f"{job['entry']:10} seed {job['seed']}  score {record['score']:+.3f}  {seconds:5.1f} s"
        )
    found = [book.find(job) for job in jobs]
    return [record for record in found if record is not None]


def _records(jobs: Sequence[Job], num_processes: int) -> Iterator[dict[str, Any]]:
    """Yield the records of jobs as they finish."""
    if num_processes == 1:
        yield from map(run, jobs)
        return
    # Not forked: torch's threads do not survive that.
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(num_processes, mp_context=spawn, initializer=_use_one_thread) as pool:
        futures = [pool.submit(run, job) for job in jobs]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _use_one_thread() -> None:
    """Let a worker compute on one core, which is the fastest for a model this small."""
    torch.set_num_threads(1)


def _digest(model: str) -> str | None:
    folder = embedded_lm_path(model) if model in EMBEDDED_LMS else Path(model)
    path = folder / "model.safetensors"
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.is_file() else None
