"""Two throws a game, the higher one wins: about the smallest self-play engine that a lane file can name."""

import hashlib, json, pathlib, random, sys  # noqa: E401, I001

job, out = (pathlib.Path(sys.argv[sys.argv.index(flag) + 1]) for flag in ("--job", "--out"))
told = json.loads(job.read_text())
rng, games = random.Random(told["seed"]), told["work"]["games"]
played = "\n".join(json.dumps([rng.randint(1, 6), rng.randint(1, 6)]) for _ in range(games)).encode()
(out / "games.jsonl").write_bytes(played)
file = {"name": "games.jsonl", "role": "games", "sha256": hashlib.sha256(played).hexdigest(), "bytes": len(played)}
print(json.dumps({"result": {"files": [file], "evidence": {"games": games, "positions": 2 * games}}}))
