"""A Redis list or sorted set becomes the wanted one, with few commands after few changes."""

from hypothesis import given
from hypothesis import strategies as st

from iidq.bullmq.list_edits import Command, list_edits, set_edits

IDS = [f"job-{number}" for number in range(30)]
UNIQUE = st.lists(st.sampled_from(IDS), unique=True)


def apply_to_list(now: list[str], commands: list[Command]) -> list[str]:
    """Apply the commands as Redis would; see the commands' pages."""
    items = list(now)
    for name, _, *words in commands:
        ids = [str(word) for word in words]
        match name:
            case "DEL":
                items = []
            case "LPUSH":
                items = [*reversed(ids), *items]
            case "RPUSH":
                items += ids
            case "LTRIM":
                items = items[int(ids[0]) : int(ids[1]) + 1]
            case "LREM":
                assert ids[0] == "-1"
                if ids[1] in items:
                    items.reverse()
                    items.remove(ids[1])
                    items.reverse()
            case _:
                raise AssertionError(name)
    return items


@given(st.lists(st.sampled_from(IDS)), UNIQUE)
def test_any_list_becomes_the_wanted_one(now: list[str], wanted: list[str]) -> None:
    """Any list becomes the wanted one, also a list with repeated ids."""
    assert apply_to_list(now, list_edits("key", now, wanted)) == wanted


@given(UNIQUE, UNIQUE.map(set), UNIQUE)
def test_a_line_that_moves_on(now: list[str], gone: set[str], new: list[str]) -> None:
    """Jobs that leave anywhere, with new jobs at the head, become the wanted list."""
    wanted = [*(job for job in new if job not in now), *(job for job in now if job not in gone)]
    assert apply_to_list(now, list_edits("key", now, wanted)) == wanted


def test_a_long_line_costs_what_changed() -> None:
    """Two claimed jobs, a cancelled job and a new job cost few commands in a list of a hundred thousand."""
    now = [f"job-{number}" for number in range(100_000)]
    wanted = ["new", *now[:50_000], *now[50_001:-2]]
    assert list_edits("key", now, wanted) == [
        ("LREM", "key", -1, "job-50000"),
        ("LTRIM", "key", 0, 99_996),
        ("LPUSH", "key", "new"),
    ]


def test_nothing_changed_costs_nothing() -> None:
    """Lists and sets without changes cost no command."""
    assert list_edits("key", IDS, list(IDS)) == []
    assert set_edits("key", {"a": 1}, {"a": 1}) == []


SCORES = st.dictionaries(st.sampled_from(IDS), st.integers(0, 5))


@given(SCORES, SCORES)
def test_any_sorted_set_becomes_the_wanted_one(now: dict[str, int], wanted: dict[str, int]) -> None:
    """Any sorted set becomes the wanted one: members come, go and change scores."""
    members = dict(now)
    for name, _, *words in set_edits("key", now, wanted):
        if name == "ZREM":
            for word in words:
                del members[str(word)]
        else:
            members |= {str(member): int(score) for score, member in zip(words[::2], words[1::2], strict=True)}
    assert members == wanted
