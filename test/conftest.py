# SPDX-License-Identifier: Apache-2.0
"""Rules for all tests: few threads, a ROS domain of their own, no limits on the time that an example takes, and in CI
nothing is left out for a missing program."""

from __future__ import annotations

import os
from contextlib import suppress

import pytest
from domains import own_domain

# Before torch or a middleware is loaded. Machines that run the tests side by side must not hear each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
if "PYTEST_XDIST_WORKER" in os.environ:  # it has inherited the domain of who started it
    os.environ["ROS_DOMAIN_ID"] = own_domain()
os.environ.setdefault("ROS_DOMAIN_ID", own_domain())
os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")

with suppress(ImportError):
    from hypothesis import HealthCheck, settings

    # Its limits are times, 0.2 s for an example: on a busy machine they would be lost by tests that are right.
    settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("unhurried")

NOT_EVERYWHERE = ("GPU", "gpu", "CUDA", "cuda")  # a reason to skip that holds in CI, too


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """With FLOWACT_CI a skipped test fails, unless it is for hardware that the machine cannot have."""
    outcome = yield
    report = outcome.get_result()
    if os.environ.get("FLOWACT_CI") and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not any(word in reason for word in NOT_EVERYWHERE):
            report.outcome = "failed"
            report.longrepr = f"skipped, but with FLOWACT_CI nothing may be: {reason}"


def pytest_collection_modifyitems(items):
    """Tests marked `cuda` skip where torch finds no card; torch is imported for them alone."""
    on_a_card = [item for item in items if item.get_closest_marker("cuda")]
    if not on_a_card:
        return
    import torch

    if not torch.cuda.is_available():
        for item in on_a_card:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA GPU"))
