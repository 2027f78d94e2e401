"""Short names for configurations: the method, and whatever differs between it and its neighbours."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from mtlbench.aggregation.gather import Result


def flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of every leaf of nested mappings."""
    for key, value in config.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def shown(value: Any) -> str:
    """0.0001, adam, true, [left,right]: as on the command line."""
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":")).replace('"', "")


def belongs(key: str, rows: Sequence[str]) -> bool:
    """Whether a key of the configuration, or the option of a group, tells rows apart: it is one of `rows`, or says
    what a group of `rows` is made of (of a hybrid the methods inside). So do the tasks, always."""
    return key in rows or key == "dataset.tasks" or (key.endswith("._target_") and key.split(".")[0] in rows)


Leaves = list[dict[str, Any]]


def names(
    results: Sequence[Result], keep: Callable[[str], bool] = lambda key: True, leaves: Leaves | None = None
) -> list[tuple[str, tuple]]:
    """A label for each result (of different configurations), and a key that sorts them: `equal` first.

    After the method come its own options, the options of other groups (optimizer=adam is "adam"), then keys, each
    where it differs: an option's keys among those that chose it, as lr among the rows with adam. keep: of the keys
    and groups only those. leaves: `different(results)`, where it is known.
    """
    groups = sorted({key for r in results for key, v in r.config.items() if isinstance(v, dict) and "_target_" in v})
    options = [{group: r.option(group) for group in groups} for r in results]
    differing = [group for group in groups if keep(group) and len({own[group] for own in options}) > 1]
    leaves = [{k: v for k, v in own.items() if keep(k)} for own in (different(results) if leaves is None else leaves)]
    keys = sorted({key for own in leaves for key in own}, key=lambda key: (not key.startswith("method."), key))
    told: list[dict[str, Any]] = [{} for _ in results]
    for key in keys:
        group = key.partition(".")[0]
        if key == f"{group}._target_":
            continue
        found: dict[str | None, set[str]] = {}  # the values of the key, among those with one option of its group
        for own, chosen in zip(leaves, options, strict=True):
            found.setdefault(chosen.get(group), set()).add(repr(own.get(key)))
        for facts, own, chosen in zip(told, leaves, options, strict=True):
            if key in own and len(found[chosen.get(group)]) > 1:
                facts[key] = own[key]
    last: dict[str, set[str]] = {}
    for key in {key for facts in told for key in facts}:
        last.setdefault(key.rpartition(".")[2], set()).add(key)
    first = keep("method")
    return [_name(facts, own, differing, last, first) for facts, own in zip(told, options, strict=True)]


def different(results: Sequence[Result]) -> Leaves:
    """The leaves of each configuration that are not the same in all, but for the seed."""
    leaves = [dict(flat(r.config)) for r in results]
    first = leaves[0] if leaves else {}
    alike = set(first)
    for own in leaves:
        alike = {key for key in alike if key in own and _same(own[key], first[key])}
    alike.add("seed")
    return [{key: value for key, value in own.items() if key not in alike} for own in leaves]


def _same(one: Any, other: Any) -> bool:
    """1, 1.0 and true are not the same."""
    return one is other or (type(one) is type(other) and one == other)


def _name(
    facts: Mapping[str, Any],
    own: Mapping[str, str],
    different: Sequence[str],
    last: Mapping[str, set[str]],
    first: bool,
) -> tuple[str, tuple]:
    def part(key: str) -> str:
        tail = key.rpartition(".")[2]
        if tail == "_target_":  # of a node inside a method: a hybrid's two parts
            return f"{key.split('.')[-2]}={facts[key].rpartition('.')[2].lower()}"
        return f"{tail if len(last[tail]) == 1 else key}={shown(facts[key])}"

    inner = [key for key in facts if key.startswith("method.")]
    others = [group for group in different if group != "method"]
    rest = [key for key in facts if key not in inner]
    label = [*[own["method"]] * first, *map(part, inner), *(own[group] for group in others), *map(part, rest)]
    place = [*((group, 1, 0, own[group]) for group in others), *((k, *_sortable(facts[k])) for k in facts)]
    return " ".join(label), (own["method"] != "equal", own["method"], place)


def _sortable(value: Any) -> tuple[int, float, str]:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return (0, value, "") if number else (1, 0, shown(value))
