"""Rows of a conflict record, for tests of figures and publishing."""

import json
from itertools import combinations


def make_rows(count=8, views=("clean", "augmented"), modules=(), per_epoch=4):
    """Every fourth update conflicts; ratios double; the cosine of a module is its index divided by ten."""
    rows = []
    for step in range(1, count + 1):
        row = {"step": step, "epoch": step / per_epoch, "conflict": step % 4 == 0}
        for a, b in combinations(views, 2):
            row[f"cosine_{a}_{b}"] = -0.5 if row["conflict"] else 0.25
            row[f"norm_ratio_{b}_{a}"] = 2.0
        for view in views:
            row |= {f"grad_norm_{view}": 1.0, f"weight_{view}": 0.5, f"loss_{view}": 0.7}
        if modules:
            row["module"] = list(modules)
            for a, b in combinations(views, 2):
                row[f"module_cosine_{a}_{b}"] = [place / 10 for place in range(len(modules))]
        rows.append(row)
    return rows


def write_rows(folder, rows):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "conflicts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
