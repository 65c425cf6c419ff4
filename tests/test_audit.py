"""What pip-audit reports, told apart: holes, none, and nothing known."""

import json

import pytest
from audit import verdict

SOUND = {"name": "a", "version": "1.0", "vulns": []}
HOLED = {"name": "b", "version": "2.0", "vulns": [{"id": "CVE-1", "fix_versions": ["2.1"]}]}
UNKNOWN = {"name": "c", "skip_reason": "Dependency not found on PyPI"}


@pytest.mark.parametrize(
    ("packages", "status", "said"),
    [
        ([SOUND, SOUND], 0, "No known hole in any of the 2 packages"),
        ([SOUND, HOLED, UNKNOWN], 1, "b 2.0: CVE-1, mended in ['2.1']"),
        ([SOUND, UNKNOWN], 2, "1 of 2 packages could not be looked up"),
        ([UNKNOWN, UNKNOWN], 2, "2 of 2 packages could not be looked up"),
    ],
)
def test_what_could_not_be_looked_up_is_not_called_sound(packages, status, said):
    found = verdict(json.dumps({"dependencies": packages}), len(packages))
    assert found[0] == status
    assert said in found[1]


def test_no_report_is_no_health():
    assert verdict("", 7) == (2, "7 of 7 packages could not be looked up; nothing is known of them.")
