"""Make a GIF of a text that gets better over training: one prompt, continued after each stage with the same seed.

    python examples/writing_gif.py [--out runs/writing.gif] [--stages 0 10000 20000 40000] [--seed 0] [--text-seed 5]

Reinforce trains the embedded LM to write more positive text, as in quickstart.py. Needs ``textgym[agents]``.
"""

import argparse
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch
from PIL import Image

import textgym
from textgym.endings import SentenceEnd
from textgym.rendering import FrameRenderer, RenderState, display_text, printable
from textgym_agents import LMPolicy, Reinforce, ReinforceConfig

Frame = tuple[Image.Image, int]
"""A picture, and how long it is shown, in milliseconds."""


def write(policy: LMPolicy, env: textgym.TextGenEnv, seed: int, draw: FrameRenderer, title: str) -> list[Frame]:
    """Write one text token by token; return a picture of each state."""
    generator = torch.Generator().manual_seed(seed)
    observation, _ = env.reset(seed=seed)
    prompt, tokens, total, info, frames = env.core.samples[0].prompt, [], 0.0, {}, []
    while True:
        state = RenderState(
            prompt=prompt,
            tokens=tuple(tokens),
            step=len(tokens),
            max_steps=env.max_new_tokens,
            total_reward=total,
            score=info.get("score"),
            end_reason=info.get("end_reason"),
        )
        frames.append((Image.fromarray(draw(state, title)), 2500 if info else 110))
        if info:
            print(printable(f"{title:>20}  [{total:+.2f}] {display_text(prompt + '|' + info['completion'])}"))
            return frames
        (action,), *_ = policy.act(observation[None], generator=generator)
        observation, reward, _, _, info = env.step(action)
        total += reward
        ids = env.core.ids[0, env.core.prompt_lengths[0] : env.core.lengths[0]].tolist()
        tokens.append(env.tokenizer.decode(ids)[len("".join(tokens)) :])


def save(path: Path, frames: list[Frame]) -> None:
    """Write the GIF, with one palette for all pictures."""
    last_ones = [np.asarray(image) for image, milliseconds in frames if milliseconds > 1000]
    some = np.concatenate([np.asarray(frames[1][0]), *last_ones])
    palette = Image.fromarray(some).quantize(64, method=Image.Quantize.MAXCOVERAGE)  # which keeps rare colours
    images = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image, _ in frames]
    path.parent.mkdir(parents=True, exist_ok=True)
    images[0].save(path, save_all=True, append_images=images[1:], duration=[ms for _, ms in frames], loop=0)


def main() -> None:
    """Train, write after each stage, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/writing.gif"))
    parser.add_argument("--stages", type=int, nargs="+", default=[0, 10_000, 20_000, 40_000], help="tokens of training")
    parser.add_argument("--seed", type=int, default=0, help="of the training")
    parser.add_argument("--text-seed", type=int, default=5, help="of prompt and text")
    args = parser.parse_args()
    torch.set_num_threads(1)  # fastest for a model this small

    task = {"scorer": "sentiment", "stop": SentenceEnd(min_new_tokens=20), "max_new_tokens": 48}
    train_env = gym.make_vec("TextGen-v0", num_envs=64, prompts="openings:train", autoreset_mode="SameStep", **task)
    env = textgym.TextGenEnv(prompts="openings:eval", **task)
    config = ReinforceConfig(num_episodes=64, learning_rate=5e-4, kl_coef=0.03, seed=args.seed)
    agent, draw = Reinforce("tiny", train_env, config), FrameRenderer(height=180)
    frames: list[Frame] = []
    for stage in sorted(args.stages):
        if stage > agent.num_timesteps:
            agent.learn(stage - agent.num_timesteps, progress_bar=True)
        title = f"after {agent.num_timesteps:,} tokens" if agent.num_timesteps else "before training"
        frames += write(agent.policy, env, args.text_seed, draw, title)
    save(args.out, frames)
    print(f"{args.out}: {len(frames)} pictures, {args.out.stat().st_size / 1000:,.0f} kB")


if __name__ == "__main__":
    main()
