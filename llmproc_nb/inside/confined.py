"""What this process already is: set by confine in a keeper, by settle in a session. Forks have it as well: they settle again."""

from __future__ import annotations

from llmproc_nb.inside.cgroup import Group

INSIDE_ID = 1000
FIRST_UID = 0x70000000
"""Where root starts a family, its processes run as this uid plus a pid: one that nothing else on the machine has."""


class Confined:
    """The tier; a keeper's folder of areas, its relay's pid, its family's cgroup, how often it still wakes whom it had stopped; the area
    a session is in, and what it gave up for good.
    """

    tier = ""
    areas = ""
    relay = 0
    group: Group | None = None
    wakes = 0
    area = ""
    limited = False
    sealed = False


NOW = Confined()


def map_ids(user: int, group: int) -> None:
    """In a new user namespace: be uid and gid 1000, and let no other id exist."""
    for name, text in (("setgroups", "deny"), ("uid_map", f"{INSIDE_ID} {user} 1"), ("gid_map", f"{INSIDE_ID} {group} 1")):
        with open(f"/proc/self/{name}", "w", encoding="utf-8") as file:
            file.write(text)
