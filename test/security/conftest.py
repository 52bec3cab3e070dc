# SPDX-License-Identifier: Apache-2.0
"""Bad inputs by the thousand: how many a run makes, and what became of them.

`make test` makes a few of each kind, `make fuzz` (`--hypothesis-profile=fuzz`) many; both end with a table.
"""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import settings

settings.register_profile("fuzz", max_examples=1000, deadline=None)

_ANSWERS: dict[str, Counter[str]] = {}
LONGEST = 400  # characters of an answer: one line that a person reads


class Tally:
    """What became of the cases of one kind."""

    def __init__(self, kind: str) -> None:
        self._counts = _ANSWERS.setdefault(kind, Counter())

    def understood(self) -> None:
        self._counts["understood"] += 1

    def refused(self, reason: object) -> None:
        """Checks that the answer is one clear line."""
        text = str(reason)
        assert text.strip() and "\n" not in text and len(text) <= LONGEST, repr(text)
        self._counts["refused"] += 1


@pytest.fixture(scope="module")
def tally(request: pytest.FixtureRequest) -> type[Tally]:
    return Tally


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not _ANSWERS:
        return
    width = max(map(len, _ANSWERS))
    total = sum(_ANSWERS.values(), Counter())
    terminalreporter.write_sep("-", "bad inputs: each was understood, or refused in one line")
    for kind, counts in [*_ANSWERS.items(), ("all", total)]:
        cases = counts["understood"] + counts["refused"]
        terminalreporter.write_line(
            f"{kind:<{width}} {cases:6} cases, {counts['understood']:6} understood, {counts['refused']:6} refused"
        )
