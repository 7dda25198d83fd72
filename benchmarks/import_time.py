"""What ``import textgym`` costs beside ``import gymnasium``, in fresh processes, one after the other.

Run it alone: python benchmarks/import_time.py
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
    seconds("textgym")  # fills the caches of the file system
    rounds = [(seconds("textgym"), seconds("gymnasium")) for _ in range(NUM_ROUNDS)]
    ours, peer = (statistics.median(column) for column in zip(*rounds, strict=True))
    print(f"import textgym: {ours:.2f} s (less than 0.5), {ours / peer:.2f} x import gymnasium, which it includes")


if __name__ == "__main__":
    main()
