"""A small world of everyday stories, made by rules: the same seed and index give the same story on every machine."""

from __future__ import annotations

from textgym.tasks.world.cast import Person
from textgym.tasks.world.lexicon import Place
from textgym.tasks.world.scene import Scene, build_scene, stable_rng
from textgym.tasks.world.telling import Teller

__all__ = ["Person", "Place", "Scene", "Teller", "build_scene", "stable_rng", "story", "tell"]


def tell(scene: Scene, variant: int = 0) -> str:
    """Return one telling of a scene; another variant has the same facts in other words."""
    return Teller(scene, stable_rng(variant, 2)).tell()


def story(seed: int, index: int) -> str:
    """Return story number `index` of the world with this seed: one paragraph of about 50 to 150 words."""
    return Teller(build_scene(seed, index), stable_rng(seed, index, 2)).tell()
