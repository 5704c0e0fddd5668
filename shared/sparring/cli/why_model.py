"""`spar why MODEL` and `spar why GATE`: why a model plays or does not, with the numbers of its matches."""

from __future__ import annotations

from typing import Any

from sparring.cli.common import ago, interval, span
from sparring.errors import BadInput
from sparring.reader import Reader

# fewer characters of a hash name a model only by accident
LEAST_PREFIX = 6
MODEL = "select * from lifecycle_models where starts_with(model, ?) order by registered_at"
GATES = "select * from lifecycle_gates where candidate = ? and lane = ? order by opened_at"
CANDIDATE = "select candidate from lifecycle_gates where gate = ?"
TASKS = """
select task, counts, games, final from lifecycle_matches where gate = ? order by task
"""
PURPOSES = {"gate": "gate", "anchor": "measured", "monitor": "monitored"}


async def of_model(reader: Reader, name: str) -> dict[str, Any] | None:
    """Everything about one model, asked for by its hash, the beginning of it, or one of its gates; None when there is none.
    Raises BadInput when it is the beginning of several."""
    candidates = reader.rows(CANDIDATE, [name])
    wanted = candidates[0]["candidate"] if candidates else name
    found = reader.rows(MODEL, [wanted]) if len(wanted) >= LEAST_PREFIX else []
    if not found:
        return None
    if len(found) > 1:
        names = ", ".join(f"{one['model'][:12]} ({one['lane']})" for one in found[:10])
        raise BadInput(f"{name!r} begins the names of {len(found)} models: {names}; give more of it")
    model = found[0]
    gates = reader.rows(GATES, [model["model"], model["lane"]])
    for gate in gates:
        gate["tasks"] = reader.rows(TASKS, [gate["gate"]])
    return {"model": model, "matches": gates}


def say_model(found: dict[str, Any], *, asked_then: bool) -> None:  # noqa: ARG001
    row = found["model"]
    why = f": {row['reason']}" if row["reason"] else ""
    print(f"{row['model'][:12]}: model {row['number']} of {row['lane']}, {row['state']} {ago(row['changed_at'])}{why}")
    print(f"  made by    {row['iteration']}, {ago(row['registered_at'])}, from data set {row['dataset'][:12]}"
          f" and {_named(row['parent'])}")  # fmt: skip
    for gate in found["matches"]:
        _say_match(gate)
    if not found["matches"]:
        print("  gate       none was opened")


def _named(model: str) -> str:
    return f"model {model[:12]}" if model else "generation 0"


def _say_match(gate: dict[str, Any]) -> None:
    told, numbers = gate["rules"], gate["statistics"]
    print(f"  {PURPOSES.get(gate['purpose'], gate['purpose']):<10} {gate['gate']} against {_named(gate['baseline'])}: "
          f"{_outcome(gate)}")  # fmt: skip
    if told:
        print(f"    asks     H0 {told['elo0']:+g}, H1 {told['elo1']:+g} {told['mode']} Elo, alpha {told['alpha']:g}, "
              f"beta {told['beta']:g}, at most {told['max_pairs']} pairs, {told['simulations']} simulations")  # fmt: skip
    if numbers:
        if told:
            print(f"    has      LLR {numbers['llr']:.2f} in [{numbers['lower']:.2f}, {numbers['upper']:.2f}]")
        print(f"    is       Elo {interval(numbers)}, LOS {numbers['los']:.3f}")
    counts = gate["counts"] or _summed(gate["tasks"])
    if counts:
        print(f"    played   {gate['pairs']} pairs in {len(gate['tasks'])} tasks, from worst to best {counts}")


def _outcome(gate: dict[str, Any]) -> str:
    if gate["decided_at"] is None:
        return f"plays since {ago(gate['opened_at'])}, {gate['pairs']} of at most {gate['most_pairs']} pairs"
    took = span((gate["decided_at"] - gate["opened_at"]).total_seconds())
    verdict = f"{gate['verdict']}: " if gate["verdict"] else ""
    return f"{verdict}{gate['reason']}, {ago(gate['decided_at'])} after {took}"


def _summed(tasks: list[dict[str, Any]]) -> list[int]:
    reported = [task["counts"] for task in tasks if task["counts"]]
    return [sum(column) for column in zip(*reported, strict=True)] if reported else []
