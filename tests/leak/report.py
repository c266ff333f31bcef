"""From recorded verdicts to a table, figures and a judgement."""

import collections

import matrix
from faults import FAULTS, TRANSITIONS


def line(verdicts):
    cells = verdicts["cells"].values()
    seen = sum(1 for c in cells if c["packets"])
    return "%s: %d cells, %d seen; %d packets, %s%s" % (
        verdicts["verdict"],
        len(cells),
        seen,
        verdicts["packets"],
        verdicts["counts"],
        "; STRANGERS %s" % verdicts["strangers"][:3] if verdicts["strangers"] else "",
    )


def key(cell):
    return "%s/%s/%d" % (cell["sender"], cell["probe"], cell["family"])


def report(data, seconds):
    """The whole result as plain data."""
    control = data["states"].get("down", {"cells": {}})
    proven = {key(c) for c in control["cells"].values() if c["packets"]}
    totals = collections.Counter()
    problems = []
    table = {}
    for state, verdicts in data["states"].items():
        for cell in verdicts["cells"].values():
            name, closed = key(cell), verdicts["verdict"] == "closed"
            if closed and cell["packets"]:
                outcome = "leak"
            elif (closed and name not in proven) or not (closed or cell["packets"]):
                outcome = "unproven"
            elif cell["error"].startswith("no past"):
                outcome = "unproven"
            else:
                outcome = "ok"
            totals["cells"] += 1
            totals[outcome] += 1
            row = table.setdefault(cell["probe"], {}).setdefault(
                state, collections.Counter()
            )
            row[outcome] += 1
            if outcome != "ok":
                problems.append(
                    "%s: %s: %s %s" % (outcome, state, name, cell["seen"][:1])
                )
        totals["packets"] += verdicts["packets"]
        totals["leaked"] += verdicts["counts"].get("leak", 0) if (
            verdicts["verdict"] == "closed"
        ) else len(verdicts["strangers"])
        for stranger in verdicts["strangers"]:
            problems.append("leak: %s: no probe's: %s" % (state, stranger))
    for name, walk in data["walks"].items():
        totals["packets"] += walk.get("packets", 0)
        totals["leaked"] += walk.get("leaked", 0)
        totals["faults"] += len(walk.get("steps", []))
        totals["transitions"] += len(walk.get("cells", []))
    for name, text in data["failures"].items():
        problems.append("failed: %s: %s" % (name, text.strip().splitlines()[-1]))
    passed = totals["ok"] + sum(1 for n in data["done"] if n not in ("down",))
    return {
        "revision": data["revision"],
        "seconds": round(seconds, 1),
        "totals": dict(totals),
        "passed": passed,
        "failed": len(problems),
        "skipped": data["skipped"],
        "problems": problems,
        "table": {p: {s: dict(c) for s, c in row.items()} for p, row in table.items()},
        "states": {
            s: {k: v for k, v in verdicts.items() if k != "cells"}
            for s, verdicts in data["states"].items()
        },
        "cells": {s: list(v["cells"].values()) for s, v in data["states"].items()},
        "walks": data["walks"],
    }


def show_lives(walks):
    """Packets leaked, by fault and transition; "." where it was not tried."""
    cells = [cell for walk in walks.values() for cell in walk.get("cells", [])]
    if not cells:
        return
    print("\npackets leaked, by fault and transition")
    for number, name in enumerate(TRANSITIONS, 1):
        print("  %d = %s" % (number, name))
    found = {(c["fault"], c["transition"]): c["leaked"] for c in cells}
    numbers = range(1, len(TRANSITIONS) + 1)
    print("%-26s" % "fault" + "".join("%4d" % n for n in numbers))
    for fault, kind in FAULTS.items():
        print("%-26s" % fault + "".join(
            "%4s" % found.get((fault, name), "." if name in kind.needs else "-")
            for name in TRANSITIONS))


def show(result):
    names = [s for s in matrix.STATES if s in result["states"]]
    print("\ncells as expected / all, by probe and state (all senders, IPv4 and IPv6)")
    for number, name in enumerate(names, 1):
        print("  %d = %s, %s" % (number, name, matrix.STATES[name][0]))
    print("%-20s" % "probe" + "".join("%9d" % n for n in range(1, len(names) + 1)))
    for probe in matrix.PROBES:
        row = result["table"].get(probe, {})
        text = ""
        for name in names:
            outcomes = row.get(name, {})
            text += "%9s" % ("%d/%d%s" % (
                outcomes.get("ok", 0),
                sum(outcomes.values()),
                "!" if outcomes.get("leak") else "?" if outcomes.get("unproven") else "",
            ) if outcomes else "-")
        print("%-20s%s" % (probe, text))
    show_lives(result["walks"])
    for name, walk in result["walks"].items():
        if walk["steps"]:
            print("%s: %s" % (name, ", ".join(s["fault"] for s in walk["steps"])))
    for name, reason in result["skipped"].items():
        print("skipped: %s: %s" % (name, reason))
    for problem in result["problems"][:60]:
        print("not ok: " + problem)
    t = result["totals"]
    print(
        "%d cells, %d leaking, %d unproven; %d faults in walks, %d at transitions; "
        "%d packets captured, %d leaked; %.0f s" % (
            t.get("cells", 0), t.get("leak", 0), t.get("unproven", 0),
            t.get("faults", 0), t.get("transitions", 0), t.get("packets", 0),
            t.get("leaked", 0),
            result["seconds"],
        )
    )
    print("%d passed, %d failed, %d skipped"
          % (result["passed"], result["failed"], len(result["skipped"])))
