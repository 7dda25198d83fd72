"""Size of a report's page, and seconds until it can be used in a browser.

    OMP_NUM_THREADS=1 python benchmarks/report_page.py [--episodes 10000]

The embedded LM writes the episodes, `tiny-early` is the reference, and five alternatives are kept before and after
for every token. The bounds are 60 bytes a token and 3 s. The time runs from the start of navigation to the first view
drawn and painted, in Chromium without a window, as the median of five loads; beside it is that of a page of the same
size that draws nothing. Sorting and scrolling are timed in the page. Needs playwright and Debian's Chromium.
"""

from __future__ import annotations

import argparse
import importlib.util
import resource
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch

import textgym  # noqa: F401 (registers TextGen-v0)
from textgym_agents import LMPolicy
from textgym_agents.inspection import Report, inspect

PLAIN = b'<!doctype html><meta charset="utf-8"><title>plain</title><script type="text/plain">%s</script><p>plain</p>'
PAINTED = """() => new Promise((done) => requestAnimationFrame(() => setTimeout(() => done(performance.now()))))"""
TIMED = """([selector, type]) => { const start = performance.now(); const node = document.querySelector(selector);
  type === "click" ? node.click() : node.dispatchEvent(new KeyboardEvent("keydown", {key: type, bubbles: true}));
  return performance.now() - start }"""


def made_report(num_episodes: int) -> Report:
    """Return the report of episodes of the embedded LM."""
    env = gym.make_vec(
        "TextGen-v0", num_envs=64, prompts="openings:train", scorer="sentiment", max_new_tokens=24,
        autoreset_mode="SameStep",
    )  # fmt: skip
    return inspect(LMPolicy("tiny"), num_episodes, env=env, reference="tiny-early", num_alternatives=5)


def seconds_to_paint(browser: Any, path: Path, ready: str, rounds: int = 5) -> float:
    """Return the median of the seconds from navigation to the first paint after an element is there."""
    times = []
    for _ in range(rounds):
        page = browser.new_page()
        page.goto(path.as_uri())
        page.wait_for_selector(ready, state="attached", timeout=60_000)
        times.append(page.evaluate(PAINTED) / 1000)
        page.close()
    return statistics.median(times)


def main() -> None:
    """Print sizes and times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=10_000)
    args = parser.parse_args()
    torch.set_num_threads(1)
    report = made_report(args.episodes)
    with tempfile.TemporaryDirectory() as folder:
        path, plain = Path(folder) / "report.html", Path(folder) / "plain.html"
        start = time.process_time()
        report.save(path)
        seconds, size, tokens = time.process_time() - start, path.stat().st_size, len(report.table)
        plain.write_bytes(PLAIN % (b"A" * size))
        print(f"{args.episodes:,} episodes, {tokens:,} tokens, {len(report.table.columns)} columns")
        print(f"page                   {size / 1e6:6.1f} MB, {size / tokens:.1f} bytes a token (bound: 60)")
        print(f"save                   {seconds:6.1f} s of the processor, {_peak_memory():.0f} MB peak of the process")
        if importlib.util.find_spec("playwright") is None or shutil.which("chromium") is None:
            print("usable after           not measured: pip install playwright, apt-get install chromium")
            return
        from playwright.sync_api import sync_playwright

        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            used, bare = (seconds_to_paint(browser, p, ready) for p, ready in ((path, "[data-ready]"), (plain, "p")))
            print(f"usable after           {used:6.2f} s (bound: 3), a plain page of the same size after {bare:.2f} s")
            page = browser.new_page()
            page.goto(f"{path.as_uri()}#episodes")
            page.wait_for_selector("[data-ready]", state="attached")
            nodes = page.evaluate("document.querySelectorAll('*').length")
            sort = page.evaluate(TIMED, ["[role=columnheader]:nth-child(2) button", "click"])
            move = page.evaluate(TIMED, [".scroll [tabindex='0']", "End"])
            print(f"sort, go to the end    {sort:6.0f} ms, {move:.0f} ms; {nodes} elements in the page")


def _peak_memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
