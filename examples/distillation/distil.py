"""A kind of task of one's own: a small student learns the policy targets of a lane's last export, in plain numpy.

    spar submit distill --lane hex4_2p --input shards --wait -- \\
        python examples/distillation/distil.py --job {job} --out {out}

The student is one linear layer from planes to moves. The job's `work` may set `steps`, `lr` and `batch_size`.
"""

import argparse
import hashlib
import json
import pathlib

import numpy as np


def loss(planes, policy, weights):
    """Mean cross-entropy in nats, and the student's probabilities."""
    logits = planes @ weights
    logits -= logits.max(axis=1, keepdims=True)
    told = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return float(-(policy * np.log(told + 1e-9)).sum(axis=1).mean()), told


parser = argparse.ArgumentParser()
parser.add_argument("--job", type=pathlib.Path, required=True)
parser.add_argument("--out", type=pathlib.Path, required=True)
asked = parser.parse_args()
job = json.loads(asked.job.read_text())
steps, rate = int(job["work"].get("steps", 300)), float(job["work"].get("lr", 0.5))
size, rng = int(job["work"].get("batch_size", 256)), np.random.default_rng(job["seed"])

shards = [np.load(path, allow_pickle=False) for path in job["inputs"]["shards"]]
planes = np.concatenate([one["planes"] for one in shards]).astype(np.float32)
policy = np.concatenate([one["policy"] for one in shards]).astype(np.float32)
whole = np.abs(policy.sum(axis=1) - 1) < 1e-3  # positions without a policy target teach nothing
planes = np.hstack([planes[whole], np.ones((int(whole.sum()), 1), np.float32)])
policy = policy[whole]

student = np.zeros((planes.shape[1], policy.shape[1]), np.float32)
before, _ = loss(planes, policy, student)
for step in range(steps):
    rows = rng.integers(0, len(planes), min(size, len(planes)))
    _, told = loss(planes[rows], policy[rows], student)
    student -= rate * planes[rows].T @ (told - policy[rows]) / len(rows)
    if step % 50 == 0:
        print(json.dumps({"progress": {"done": step, "of": steps}}), flush=True)
after, _ = loss(planes, policy, student)

file = asked.out / "student.npz"
np.savez(file, weights=student)
content = file.read_bytes()
made = {"name": file.name, "role": "student", "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
evidence = {"steps": steps, "positions": len(planes), "loss_before": before, "loss_after": after}
print(json.dumps({"result": {"files": [made], "evidence": evidence}}))
