"""Who is served next where several accounts wait for a few places."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence


class FairShare:
    """`places` are served at once, of one account at most `share` of them, so that nobody who comes later waits for all
    that another has asked for. Whose turn it is: the account that has the fewest under way, among those the one that
    was served longest ago, and of an account's own the one that has waited longest."""

    def __init__(self, places: int, share: int) -> None:
        self._places = places
        self._share = share
        self._turn = 0
        self._served: dict[str, int] = {}

    def chosen(self, waiting: Sequence[tuple[str, str]], running: Mapping[str, str]) -> list[str]:
        """Which of `waiting` (name and account, in the order in which they came) begin now beside `running` (account by
        name). They count as served."""
        under_way = Counter(running.values())
        left = [each for each in waiting if each[0] not in running]
        found: list[str] = []
        while len(running) + len(found) < self._places:
            able = [each for each in left if under_way[each[1]] < self._share]
            if not able:
                break
            name, account = min(able, key=lambda each: (under_way[each[1]], self._served.get(each[1], 0)))
            found.append(name)
            left.remove((name, account))
            under_way[account] += 1
            self._turn += 1
            self._served[account] = self._turn
        for account in self._served.keys() - {account for _, account in left} - under_way.keys():
            del self._served[account]  # who waits for nothing is as new when it comes again
        return found
