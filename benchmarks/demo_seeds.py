"""Whether the demo holds on three seeds: half of the distance to the maximal score closed, the text still readable.

Run it alone, on one thread: OMP_NUM_THREADS=1 python benchmarks/demo_seeds.py
It runs the training of examples/quickstart.py as it is.
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
        was, training, now = measured["before"], measured["training"], measured["after"]
        print(
            f"seed {seed}: score {was['score']:+.3f} -> {now['score']:+.3f}, "
            f"{(now['score'] - was['score']) / (1 - was['score']):.0%} of the distance closed (at least 50%); "
            f"perplexity {now['perplexity'] / was['perplexity']:.2f} x the untrained LM's own (at most 2); "
            f"KL {now['kl']:.2f} nats per token; {training['time/time_elapsed']:.0f} s (less than 90)",
            flush=True,
        )


if __name__ == "__main__":
    main()
