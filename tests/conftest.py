"""What all tests share: how long Hypothesis may look, and that it finds the same things again."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings

_SLOW_BY_NATURE = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]

# "ci" is the same run every time; "long" goes where no run was before:
# HYPOTHESIS_PROFILE=long pytest tests/integration/test_store_machine.py
settings.register_profile(
    "ci",
    derandomize=True,
    deadline=None,
    max_examples=100,
    stateful_step_count=40,
    database=None,
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
    suppress_health_check=_SLOW_BY_NATURE,
)
settings.register_profile(
    "long",
    deadline=None,
    max_examples=2000,
    stateful_step_count=60,
    print_blob=True,
    suppress_health_check=_SLOW_BY_NATURE,
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))
