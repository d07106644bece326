import pytest

from pipelines.retries import ATTEMPTS, StorageUnavailable, is_transient, retried

OUTAGE = OSError("When reading 'a': AWS Error SLOW_DOWN (HTTP status 503)")


class Failing:
    """Fails so many times, then answers; remembers the pauses."""

    def __init__(self, times, error=OUTAGE):
        self.left, self.error, self.pauses = times, error, []

    def __call__(self):
        if self.left:
            self.left -= 1
            raise self.error
        return "read"


def test_a_short_outage_is_waited_out_with_pauses_that_grow():
    call = Failing(ATTEMPTS - 1)
    assert retried(call, "s3://b/a", sleep=call.pauses.append) == "read"
    assert len(call.pauses) == ATTEMPTS - 1
    assert 0 < max(call.pauses) <= 0.5 * 2**ATTEMPTS


def test_a_long_outage_ends_with_what_failed_and_the_storages_own_words():
    call = Failing(100)
    with pytest.raises(StorageUnavailable, match=r"s3://b/a: .*SLOW_DOWN.*; 5 tries failed"):
        retried(call, "s3://b/a", sleep=call.pauses.append)
    assert call.left == 100 - ATTEMPTS


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(2, "no"),
        PermissionError(13, "no"),
        OSError("Corrupt snappy"),
        ValueError("x"),
    ],
)
def test_what_trying_again_cannot_mend_is_raised_at_once(error):
    call = Failing(1, error)
    with pytest.raises(type(error)):
        retried(call, "a", sleep=call.pauses.append)
    assert call.pauses == []


def test_a_full_disk_is_not_for_trying_again():
    assert is_transient(OSError(5, "Input/output error"))
    assert not is_transient(OSError(28, "No space left on device"))
