"""Time of ``import textgym`` relative to ``import gymnasium``.

    python benchmarks/import_time.py

Each import runs in a fresh process; the two are measured alternately.
"""

import statistics
import subprocess
import sys

NUM_ROUNDS = 11
TIMED_IMPORT = "import time; start = time.perf_counter(); import {}; print(time.perf_counter() - start)"


def seconds(module: str) -> float:
    command = [sys.executable, "-c", TIMED_IMPORT.format(module)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    seconds("textgym")  # warms up the file system cache
    rounds = [(seconds("textgym"), seconds("gymnasium")) for _ in range(NUM_ROUNDS)]
    ours, gymnasium = (statistics.median(column) for column in zip(*rounds, strict=True))
    print(f"import textgym: {ours:.2f} s (less than 0.5), {ours / gymnasium:.2f} x import gymnasium, which it includes")


if __name__ == "__main__":
    main()
