"""Settings that must be made before torch and transformers are imported, and those of hypothesis."""

import os

from hypothesis import settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("textgym", deadline=None)  # no test depends on wall time
settings.load_profile("textgym")
