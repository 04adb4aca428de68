"""The few commands that turn one Redis list or sorted set into another. Pure.

A queue's list changes at its ends: claims take from the tail, new jobs come to the head. So the longest piece that
stays is kept, what is around it is trimmed and pushed anew, and only a few strays inside are searched for.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

Command = tuple[str | int, ...]

ITEMS_PER_COMMAND: Final = 500
# Each is a search through the list; with more of them, writing it anew is cheaper.
_MOST_STRAYS: Final = 50


def list_edits(key: str, now: Sequence[str], wanted: Sequence[str]) -> list[Command]:
    """Commands after which the list at ``key``, which is ``now``, is ``wanted``; first the head. No id twice."""
    if now == wanted:
        return []
    if len(set(now)) < len(now):
        # Somebody else's doing.
        return [("DEL", key), *_pushes("RPUSH", key, wanted)]
    stays = set(wanted)
    strays = [job_id for job_id in _between_ends(now, stays) if job_id not in stays]
    commands: list[Command] = []
    left = now
    if len(strays) <= _MOST_STRAYS:
        commands += [("LREM", key, -1, job_id) for job_id in strays]
        gone = set(strays)
        left = [job_id for job_id in now if job_id not in gone]
    start, target, length = _common_piece(left, wanted)
    if length == 0:
        return [("DEL", key), *_pushes("RPUSH", key, wanted)]
    if start > 0 or start + length < len(left):
        commands.append(("LTRIM", key, start, start + length - 1))
    commands += _pushes("LPUSH", key, wanted[:target][::-1])
    commands += _pushes("RPUSH", key, wanted[target + length :])
    return commands


def set_edits(key: str, now: Mapping[str, int], wanted: Mapping[str, int]) -> list[Command]:
    """Commands after which the sorted set at ``key``, which is ``now``, is ``wanted``: id → score."""
    commands: list[Command] = [
        ("ZREM", key, *some) for some in _in_pieces([job_id for job_id in now if job_id not in wanted])
    ]
    added = [job_id for job_id, score in wanted.items() if now.get(job_id) != score]
    for some in _in_pieces(added):
        pairs: list[str | int] = []
        for job_id in some:
            pairs += (wanted[job_id], job_id)
        commands.append(("ZADD", key, *pairs))
    return commands


def _between_ends(now: Sequence[str], stays: set[str]) -> Sequence[str]:
    """What is left of ``now`` without the ids to go at both ends: those are trimmed."""
    first, last = 0, len(now)
    while first < last and now[first] not in stays:
        first += 1
    while last > first and now[last - 1] not in stays:
        last -= 1
    return now[first:last]


def _common_piece(now: Sequence[str], wanted: Sequence[str]) -> tuple[int, int, int]:
    """The longest piece of ``now`` that stands in ``wanted`` as it is: where in each, and its length."""
    places = {job_id: place for place, job_id in enumerate(wanted)}
    best = (0, 0, 0)
    start = 0
    while start < len(now) - best[2]:
        target = places.get(now[start])
        if target is None:
            start += 1
            continue
        length = _common_start(now, start, wanted, target)
        if length > best[2]:
            best = (start, target, length)
        start += length
    return best


def _common_start(now: Sequence[str], start: int, wanted: Sequence[str], target: int) -> int:
    """How many are the same from there on."""
    longest = min(len(now) - start, len(wanted) - target)
    # As a whole line moves on, the rest is the same: one comparison instead of a hundred thousand.
    if now[start : start + longest] == wanted[target : target + longest]:
        return longest
    length = 1
    while length < longest and now[start + length] == wanted[target + length]:
        length += 1
    return length


def _pushes(command: str, key: str, job_ids: Sequence[str]) -> list[Command]:
    return [(command, key, *some) for some in _in_pieces(job_ids)]


def _in_pieces(job_ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(job_ids), ITEMS_PER_COMMAND):
        yield job_ids[start : start + ITEMS_PER_COMMAND]
