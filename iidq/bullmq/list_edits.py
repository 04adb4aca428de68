"""Compute few commands to turn a Redis list or sorted set into another. Pure.

The list of a queue changes at both ends: claims take from the tail, new jobs come to the head. So the longest common
piece is kept, both ends are trimmed and pushed again, and a few strays inside are removed by search.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

Command = tuple[str | int, ...]

ITEMS_PER_COMMAND: Final = 500
# Each stray costs a search through the list; with more strays, writing the whole list is cheaper.
_MOST_STRAYS: Final = 50


def list_edits(key: str, now: Sequence[str], wanted: Sequence[str]) -> list[Command]:
    """Return the commands to turn the list at ``key`` from ``now`` into ``wanted`` (head first, ids unique)."""
    if now == wanted:
        return []
    if len(set(now)) < len(now):
        # Another client has pushed an id twice.
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
    """Return the commands to turn the sorted set at ``key`` from ``now`` into ``wanted`` (scores by id)."""
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
    """Return ``now`` without the ids at both ends that will be trimmed."""
    first, last = 0, len(now)
    while first < last and now[first] not in stays:
        first += 1
    while last > first and now[last - 1] not in stays:
        last -= 1
    return now[first:last]


def _common_piece(now: Sequence[str], wanted: Sequence[str]) -> tuple[int, int, int]:
    """Return the longest common piece of ``now`` and ``wanted``: the place in each, and the length."""
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
    """Return the number of equal items from these places on."""
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
