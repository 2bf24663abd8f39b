import pytest

from deployments.engines.face_swap.sources import SourceCache
from deployments.jobs.errors import NoFaceDetected


def fill(cache, names):
    """Ask for sources in order and return those that had to be prepared."""
    prepared = []

    def prepare(name):
        prepared.append(name)
        return name.upper()

    for name in names:
        assert cache.get(name, lambda name=name: prepare(name)) == name.upper()
    return "".join(prepared)


@pytest.mark.parametrize(
    ("capacity", "asked", "prepared"),
    [(2, "aaab", "ab"), (2, "abcab", "abcab"), (2, "abaca", "abc"), (0, "aa", "aa")],
    ids=["remembers", "drops the oldest", "use keeps young", "none kept"],
)
def test_get_prepares(capacity, asked, prepared):
    assert fill(SourceCache(capacity), asked) == prepared


def test_get_remembers_no_failure():
    cache = SourceCache(2)

    def fail():
        raise NoFaceDetected("source")

    with pytest.raises(NoFaceDetected):
        cache.get("a", fail)
    assert fill(cache, "a") == "a"
