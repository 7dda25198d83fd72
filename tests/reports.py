"""Reports with all columns, made up of random numbers: pages show what they are given."""

import numpy as np

from textgym.tasks import task_prompts
from textgym.tokenizers import as_tokenizer
from textgym_agents.inspection import Alarm, Branch, Report, TokenTable

DIVERGING = ("reward", "gae_advantage", "td_error", "advantage_mc", "kl_k1", "credit_prefix", "push", "push_policy")
POSITIVE = ("entropy", "entropy_before", "kl", "ratio", "advantage_mc_se")
CHANGES = ("predicted_change", "realized_change")


def random_report(num_episodes=40, num_tokens=19, texts=None, seed=0, num_alternatives=5):
    """Return a report of texts of ``tiny``, or of given tokens, with pairs, groups, branches, alarms and metrics."""
    rng = np.random.default_rng(seed)
    if texts is None:
        tokenizer = as_tokenizer("tiny")
        texts = {i: tokenizer.decode([i]) for i in range(tokenizer.vocab_size)}
    ids = np.array(sorted(texts))
    lengths = rng.integers(max(1, num_tokens - 6), num_tokens + 7, num_episodes)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    total = int(offsets[-1])
    top = np.argsort(rng.random((total, 4 * num_alternatives)), axis=1)[:, :num_alternatives]
    top = ids[(rng.zipf(1.4, (total, 1)) + top) % len(ids)]
    tokens = np.where(rng.random(total) < 0.7, top[:, 0], rng.choice(ids, total))
    log_probs = -np.sort(rng.gamma(1.0, 1.5, (total, num_alternatives)), axis=1)
    steps = np.arange(lengths.max()) < lengths[:, None]
    table = TokenTable(offsets, tokens, texts, np.arange(total), steps)
    columns = table.columns
    columns["log_prob"] = log_probs[:, 0] * rng.gamma(1.0, 1.0, total)
    columns["log_prob_before"] = columns["log_prob"] - rng.normal(0.1, 0.5, total)
    columns["rank"], columns["rank_before"] = rng.zipf(1.6, (2, total)).clip(1, 2000)
    columns["mask_size"] = rng.integers(900, 1000, total)
    columns["value"] = np.cumsum(rng.normal(0, 0.1, total)) % 1
    for name in DIVERGING:
        columns[name] = rng.normal(0, 0.1, total)
    for name in POSITIVE:
        columns[name] = rng.gamma(2.0, 0.05, total)
    for name in CHANGES:
        columns[name] = columns["push"] * 1e-3 + rng.normal(0, 2e-5, total)
    columns["clipped"] = (rng.random(total) < 0.1).astype(float)
    columns["value_mc"] = columns["value"] + rng.normal(0, 0.1, total)
    columns["top_ids"], columns["top_log_probs"] = top, log_probs
    columns["top_log_probs_before"] = log_probs - rng.normal(0, 0.3, log_probs.shape)
    columns["biography"] = -rng.gamma(1.0, 1.0, (total, 3))
    within = np.arange(total) - np.repeat(offsets[:-1], lengths)
    occlusion = rng.normal(0, 0.5, (total, 6 + lengths.max()))
    columns["occlusion"] = np.where(np.arange(occlusion.shape[1]) < 6 + within[:, None], occlusion, np.nan)
    table.columns = {name: values.astype(np.float32) for name, values in columns.items()}
    prompts = task_prompts("sentiment")
    infos = [
        {
            "prompt": str(prompts[(n // 4) % len(prompts)].prompt),
            "return": float(rng.uniform(-1, 1)),
            "score": float(rng.uniform(-1, 1)),
            "scores": {"sentiment": float(rng.uniform(-1, 1))},
            "end_reason": str(rng.choice(["eos", "max_new_tokens"])),
            "group": n // 4,
            "update": 1 + n * 20 // num_episodes,
            "policy": ("before", "after")[n % 2],
            "pair": n ^ 1,
        }
        for n in range(num_episodes)
    ]
    report = Report(table, infos, {"return": "score minus kl_coef x KL", "seed": seed, "env": {"id": "TextGen-v0"}})
    report.about["checkpoints"] = ["step 1", "step 2", "step 3"]
    report.reasons = [f"the return is {word} V" for word in np.where(columns["push"] > 0, "above", "below")]
    curve = np.linspace(0, 0.7, 20) + rng.normal(0, 0.05, 20)
    report.metrics = [
        {"rollout/ep_rew_mean": float(x), "train/kl_reference": float(x) ** 2, "time/total_timesteps": 1536.0 * (i + 1)}
        for i, x in enumerate(curve)
    ]
    for n in (0, 3):
        infos[n]["completion"] = "".join(texts[i] for i in table.ids[table.rows(n)].tolist())
    shown = tuple(infos[n]["completion"] for n in (0, 3))
    message = "KL to the reference is 1.2 nats a token, more than 1"
    report.alarms = [Alarm("kl", message, "Raise kl_coef.", 1.2, 1.0, 12, (0, 3), shown)]
    actions = tuple(int(i) for i in top[2])
    q_values = tuple(float(x) for x in rng.normal(0.3, 0.2, num_alternatives))
    report.branches = [
        Branch(0, 2, actions, (0.5, 0.2, 0.1, 0.05, 0.02), q_values, (0.04,) * 5, (("and they all laughed.",),) * 5)
    ]
    return report


def hostile_report():
    """Return a report whose tokens, prompts, settings and names try to leave their place in the page."""
    hostile = [
        "</script><img src=x onerror=window.hacked=1>",
        "<script>window.hacked=1</script>",
        "\u202ereversed",
        "\x1b[2J",
        "\ud83d",
        "\x00",
        "<!--",
        "{{script}}",
        '"><svg onload=window.hacked=1>',
        "javascript:window.hacked=1",
        " the",
        "\n",
        "\u05d0\u05d1\u05d2",
        "",
    ]
    report = random_report(8, 10, dict(enumerate(hostile)))
    for info, text in zip(report.infos, hostile, strict=False):
        info["prompt"], info["end_reason"], info[text] = text, text, 1
        info["scores"] = {text: 0.5}
    report.about |= {text: text for text in hostile}
    report.metrics = [{**row, **dict.fromkeys(hostile, 1.0)} for row in report.metrics]
    report.infos[1]["completion"] = "".join(hostile)
    report.alarms = [Alarm(text, text, text, 1.0, 0.0, 2, (1,), ("".join(hostile),)) for text in hostile]
    report.branches = [
        Branch(b.episode, b.token, b.actions, b.probs, b.q_values, b.standard_errors, (tuple(hostile),) * 5)
        for b in report.branches
    ]
    return report
