"""An audit that reached nobody does not say that all is well."""

from tests.audit_dependencies import report

SOUND = {"name": "sound", "version": "1.0", "vulns": []}
HARMED = {"name": "harmed", "version": "2.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2.1"]}]}
UNKNOWN = {"name": "unknown", "version": "3.0", "skip_reason": "not found"}


def test_what_nobody_was_asked_about_is_not_called_sound():
    assert report([UNKNOWN, UNKNOWN]) == (
        ["NOT audited: the advisory service knows none of the 2 packages from here"],
        0,
    )
    assert report([SOUND, UNKNOWN]) == (
        ["1 packages audited, 0 known vulnerabilities", "1 packages could not be audited"],
        0,
    )


def test_a_known_vulnerability_fails_the_audit():
    lines, code = report([SOUND, HARMED])
    assert lines == ["harmed 2.0: PYSEC-1, fixed in 2.1", "2 packages audited, 1 known vulnerabilities"]
    assert code == 1
    assert report([SOUND])[1] == 0
