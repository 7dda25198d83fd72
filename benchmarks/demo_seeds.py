"""The demo on three seeds: score, perplexity, KL and time.

    OMP_NUM_THREADS=1 python benchmarks/demo_seeds.py

It runs the training of examples/quickstart.py unchanged.
"""

import contextlib
import io
import runpy
import tempfile
from pathlib import Path

import torch

SEEDS = (0, 1, 2)


def main() -> None:
    torch.set_num_threads(1)
    quickstart = runpy.run_path(str(Path(__file__).parent.parent / "examples" / "quickstart.py"))
    for seed in SEEDS:
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            measured = quickstart["train_and_compare"](quickstart["TIMESTEPS"], seed, Path(folder))
        before, training, after = measured["before"], measured["training"], measured["after"]
        closed = (after["score"] - before["score"]) / (1 - before["score"])
        print(
            f"seed {seed}: score {before['score']:+.3f} -> {after['score']:+.3f}, "
            f"{closed:.0%} of the gap to the maximum closed (at least 80%); "
            f"perplexity {after['perplexity'] / before['perplexity']:.2f} x that of the untrained LM (at most 1.3); "
            f"KL {after['kl']:.2f} nats per token; "
            f"distinct last sentences of 256 texts {before['endings']} -> {after['endings']}; "
            f"{training['time/time_elapsed']:.0f} s (at most 44)",
            flush=True,
        )


if __name__ == "__main__":
    main()
