"""Two result files: each of our figures whose median got worse by more than 10 %, and by more than the runs of either file differ.

  compare.py OLD.json NEW.json          exits with 1 when there is one
Peers are not ours to get better or worse: where they did, the machine was another or busy, and that is said."""

import json
import pathlib
import sys

from report import BETTER, MORE, OURS, shown

WORSE = 1.10


def worse(old, new):
    """Every (kind of finding, text): 'ours' or 'peer'."""
    for group, kinds in old["summary"].items():
        for kind, figures in kinds.items():
            there = new["summary"].get(group, {}).get(kind, {})
            for name in BETTER:
                if name in figures and name in there and (text := verdict(name, figures[name], there[name])):
                    yield OURS if kind.startswith(OURS) else "peer", f"{group}: {kind}: {name} {text}"


def verdict(name, before, after):
    """What got worse, as text; None when nothing did, or not beyond the spread of the runs."""
    sign = BETTER[name]
    was, now = before["median"], after["median"]
    factor = (was / now if sign == MORE else now / was) if was > 0 and now > 0 else 1.0
    is_apart = now < before["min"] and was > after["max"] if sign == MORE else now > before["max"] and was < after["min"]
    return f"{shown(was)} -> {shown(now)}, worse by {100 * (factor - 1):.0f} %" if factor > WORSE and is_apart else None


def main():
    if len(sys.argv) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    old, new = (json.loads(pathlib.Path(path).read_text()) for path in sys.argv[1:])
    shared = sum(kind in new["summary"].get(group, {}) for group, kinds in old["summary"].items() for kind in kinds)
    if not shared:
        print("bench: the two files have no group and kind of runs in common", file=sys.stderr)
        return 2
    found = list(worse(old, new))
    for who, text in found:
        print(text if who == OURS else f"(the machine? {text})")
    count = sum(who == OURS for who, _ in found)
    print(f"bench: {shared} kinds of runs compared, {count} figures of ours got worse by more than {100 * (WORSE - 1):.0f} %")
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main())
