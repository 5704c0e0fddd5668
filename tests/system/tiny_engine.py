"""A whole engine in a page, for tests of the loop: a model is a strength, training adds to it, matches compare two."""

from __future__ import annotations

import hashlib
import json
import random
import sys
import time
from pathlib import Path


def write(out: Path, name: str, content: bytes, role: str) -> dict[str, object]:
    (out / name).write_bytes(content)
    return {"name": name, "role": role, "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}


def strength(path: str | None) -> int:
    return int(json.loads(Path(path).read_bytes())["strength"]) if path else 0


def main() -> None:
    job, out = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    rng, kind, work, inputs = random.Random(job["seed"]), job["kind"], job["work"], job["inputs"]
    time.sleep(float(job["params"].get("seconds", 0.2)))
    if kind == "selfplay":
        games = int(work["games"])
        content = json.dumps({"task": job["task"], "games": [rng.random() for _ in range(games)]}).encode()
        files = [write(out, "games.json", content, "games")]
        evidence = {"games": games, "positions": 10 * games, "mean_plies": 10.0, "policy_coverage": 1.0}
    elif kind == "export":
        games = sum(len(json.loads(Path(one).read_bytes())["games"]) for one in inputs["batches"])
        files = [write(out, "shard.json", json.dumps({"games": games}).encode(), "shard")]
        coverage = {"planes": 1.0, "policy": 1.0, "value": 1.0}
        evidence = {"positions": 10 * games, "coverage": coverage, "duplicates": 0.0}
    elif kind == "train":
        model = {"strength": strength(inputs.get("parent")) + 1, "seed": job["seed"]}
        files = [write(out, "model.json", json.dumps(model).encode(), "model")]
        evidence = {"steps": 10, "positions": 100}
    else:
        better = strength(inputs["candidate"]) - strength(inputs.get("baseline"))
        weights = [1, 2, 4, 6, 7] if better > 0 else [4, 4, 4, 4, 4]
        counts = [0] * 5
        for one in rng.choices(range(5), weights, k=int(work["pairs"])):
            counts[one] += 1
        files, evidence = [], {"counts": counts, "pairs": sum(counts), "games": 2 * sum(counts), "settings": {}}
    print(json.dumps({"progress": {"done": 1, "of": 1}}), flush=True)
    print(json.dumps({"result": {"files": files, "evidence": evidence}}), flush=True)


if __name__ == "__main__":
    main()
