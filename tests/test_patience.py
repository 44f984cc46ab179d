"""A storage that is away for minutes costs a trial the minutes, and not its life."""

import errno

import pytest

from tune import patience
from tune.patience import report_patiently


class Storage:
    """Fails some times, and then takes what it is given."""

    def __init__(self, *failures: OSError):
        self.failures, self.tries, self.taken = list(failures), 0, []

    def report(self, metrics, checkpoint):
        self.tries += 1
        if self.failures:
            raise self.failures.pop(0)
        self.taken.append((metrics, checkpoint))


@pytest.fixture
def pauses(monkeypatch) -> list[float]:
    slept: list[float] = []
    monkeypatch.setattr(patience.time, "sleep", slept.append)
    return slept


def test_it_is_waited_for(pauses):
    storage = Storage(OSError("AWS Error NETWORK_CONNECTION"), OSError("AWS Error SLOW_DOWN"))
    report_patiently({"step": 1}, "state", storage.report, lambda: True)
    assert storage.taken == [({"step": 1}, "state")]
    assert pauses == [5, 10]


def test_not_for_ever(pauses):
    storage = Storage(*[OSError("away") for _ in range(99)])
    with pytest.raises(OSError, match="away"):
        report_patiently({}, "state", storage.report, lambda: True)
    assert 480 < sum(pauses) < 600


@pytest.mark.parametrize(
    ("error", "remote"),
    [(PermissionError("a folder"), False), (OSError(errno.ENOSPC, "No space left on device"), True)],
)
def test_what_waiting_does_not_mend_fails_at_once(pauses, error, remote):
    storage = Storage(error)
    with pytest.raises(OSError, match=str(error.args[-1])):
        report_patiently({}, "state", storage.report, lambda: remote)
    assert (storage.tries, pauses) == (1, [])
