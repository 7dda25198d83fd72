"""Train a small language model to write more positive text, on a CPU, in about a minute.

    python examples/quickstart.py [--timesteps 100000] [--seed 0] [--kl-coef 0.03] [--out runs/quickstart-1]

Reinforce trains the embedded LM on TextGen-v0. The score is VADER's sentiment of the completion, which ends with the
first sentence from its 20th token on; a KL penalty keeps the policy close to the initial LM. Afterwards both models
continue the same eight prompts.
"""

import argparse
import itertools
import re
import shutil
import textwrap
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch

import textgym
from textgym.endings import SentenceEnd
from textgym.rendering import display_text
from textgym_agents import Episodes, LMPolicy, Reinforce, ReinforceConfig, RunFolder, SampleTexts, collect
from textgym_agents.reference import ReferencePolicy

TIMESTEPS = 100_000
KL_COEF = 0.03
NUM_SHOWN = 8
NUM_EVALUATED = 256


def evaluate(policy: LMPolicy, env: gym.vector.VectorEnv) -> Episodes:
    """Continue held-out prompts, with the same prompts and random numbers for every policy.

    With one environment per episode no environment is reset, so the prompts do not depend on episode lengths.
    """
    return collect(env, policy, NUM_EVALUATED, seed=1, generator=torch.Generator().manual_seed(1))


def summary(episodes: Episodes, start: ReferencePolicy) -> dict[str, float]:
    """Return mean score, perplexity under the initial LM, KL to it per token, and number of distinct last sentences."""
    with torch.no_grad():
        log_probs = start.evaluate(episodes).log_probs.sum()
    num_tokens = episodes.num_steps.sum()
    return {
        "score": float(np.mean([info["score"] for info in episodes.infos])),
        "perplexity": float((-log_probs / num_tokens).exp()),
        "kl": round(float((episodes.log_probs.sum() - log_probs) / num_tokens), 3) or 0.0,  # no -0.000
        "endings": len({re.split(r'[.!?]"? ', info["completion"])[-1] for info in episodes.infos}),
    }


def side_by_side(before: Episodes, after: Episodes) -> str:
    """Return the first completions of both in two columns under their prompts."""
    width = min(56, (shutil.get_terminal_size((120, 24)).columns - 6) // 2)
    lines = []
    pairs = {left["prompt"]: (left, right) for left, right in zip(before.infos, after.infos, strict=True)}
    for left, right in itertools.islice(pairs.values(), NUM_SHOWN):
        lines.append(f"> {display_text(left['prompt'], one_line=True)} ...")
        cells = [
            textwrap.wrap(f"[{info['score']:+.2f}] {display_text(' '.join(info['completion'].split()))}", width)
            for info in (left, right)
        ]
        lines += [f"  {a:<{width}}   {b}" for a, b in itertools.zip_longest(*cells, fillvalue="")]
    return "\n".join(lines)


def train_and_compare(timesteps: int, seed: int, out: Path, kl_coef: float = KL_COEF) -> dict[str, dict[str, float]]:
    """Train, print the comparison, write the run folder; return the metrics before, during and after training."""
    stop = SentenceEnd(min_new_tokens=20)
    keywords = {"scorer": "sentiment", "stop": stop, "max_new_tokens": 48, "autoreset_mode": "SameStep"}
    env = gym.make_vec("TextGen-v0", num_envs=64, prompts="openings:train", **keywords)
    held_out = gym.make_vec("TextGen-v0", num_envs=NUM_EVALUATED, prompts="openings:eval", **keywords)
    config = ReinforceConfig(num_episodes=64, learning_rate=5e-4, kl_coef=kl_coef, seed=seed)
    agent = Reinforce("tiny", env, config)
    run = RunFolder(out, {"textgym": textgym.__version__, "model": "tiny", "env": keywords | {"stop": repr(stop)}})

    before = evaluate(agent.policy, held_out)
    print(f"Training the embedded LM on {timesteps:,} tokens ...", flush=True)
    agent.learn(timesteps, callback=[run, SampleTexts(every=20, num_texts=2, path=out)], progress_bar=True)
    after = evaluate(agent.policy, held_out)
    print(f"\nThe same prompts, continued before (left) and after (right):\n\n{side_by_side(before, after)}\n")
    return {
        "before": summary(before, agent.kl.reference),
        "training": run.rows[-1],
        "after": summary(after, agent.kl.reference),
    }


def main() -> None:
    """Train and print a summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--timesteps", type=int, default=TIMESTEPS, help="tokens to train on (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kl-coef", type=float, default=KL_COEF, help="KL penalty coefficient (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="run folder (default: the first free runs/quickstart-N)")
    args = parser.parse_args()
    out = args.out or next(p for n in itertools.count(1) if not (p := Path(f"runs/quickstart-{n}")).exists())
    torch.set_num_threads(1)  # fastest for a model this small

    was, training, now = train_and_compare(args.timesteps, args.seed, out, args.kl_coef).values()
    closed = (now["score"] - was["score"]) / (1 - was["score"])
    print(f"{NUM_EVALUATED} held-out prompts                          before    after")
    print(f"mean sentiment (1 is the maximum)             {was['score']:+.3f}   {now['score']:+.3f}")
    print(f"perplexity under the initial LM               {was['perplexity']:6.2f}   {now['perplexity']:6.2f}")
    print(f"KL to the initial LM, nats per token          {was['kl']:6.3f}   {now['kl']:6.3f}")
    print(f"distinct last sentences                       {was['endings']:6}   {now['endings']:6}")
    print(f"\nTraining closed {closed:.0%} of the gap to the maximum in", end=" ")
    print(f"{training['time/time_elapsed']:.0f} s at {training['time/fps']:,.0f} tokens/s.")
    print(f"Run folder: {out}  (learning_curve.png, metrics.csv, TensorBoard events, config.json, lm/, agent/)")


if __name__ == "__main__":
    main()
