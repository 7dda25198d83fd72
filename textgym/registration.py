"""The ids that ``gym.make`` and ``gym.make_vec`` know once textgym is imported."""

import gymnasium as gym

__all__ = ["register_envs"]

PROBE_IDS = (
    "ProbeConstant-v0",
    "ProbeBandit-v0",
    "ProbePrompt-v0",
    "ProbeStop-v0",
    "ProbeDelay-v0",
    "ProbeMemory-v0",
    "ProbeCopy-v0",
    "ProbeReverse-v0",
    "ProbeTrap-v0",
)
"""The keys of ``textgym.tasks.probes.PROBES``, which is imported only when one of them is made."""


TASK_ENVS = {
    "TextGenDialogue-v0": "dialogue",
    "TextGenTranslation-v0": "translation",
    "TextGenQA-v0": "qa",
    "TextGenSummary-v0": "summary",
}
"""The ids of the tasks by their names; ``textgym.tasks`` is imported only when one of them is made."""


def register_envs() -> None:
    """Register every environment of the package; ``import textgym`` calls it."""
    gym.register(
        id="TextGen-v0",
        entry_point="textgym.envs.single:TextGenEnv",
        vector_entry_point="textgym.envs.vector:TextGenVectorEnv",
    )
    for env_id, task in TASK_ENVS.items():
        gym.register(
            id=env_id,
            entry_point=f"textgym.tasks.{task}:{env_id.removesuffix('-v0')}Env",
            vector_entry_point="textgym.envs.vector:TextGenVectorEnv",
            kwargs={"task": task},
        )
    for probe in PROBE_IDS:
        gym.register(
            id=probe,
            entry_point="textgym.tasks.probes:make_probe",
            vector_entry_point="textgym.tasks.probes:make_probe_vector",
            kwargs={"probe": probe},
        )
