import itertools
import json

import pytest
import torch

from robo_rlft.spec import ArraySpec
from robo_rlft.training.bench.data import IMAGE, LOW, Case, loaders, record, run

CASES = (
    Case("low", LOW, ArraySpec((3,)), episodes=3, steps=9, chunk=4),
    Case("image", IMAGE, ArraySpec((4, 4, 3), "uint8"), episodes=3, steps=9, chunk=4),
)


@pytest.mark.parametrize("case", CASES, ids=["low", "image"])
def test_the_peers_load_the_same_windows(case, tmp_path):
    """Over one epoch, every loader gives the same set of (observation, action, mask)."""
    dataset = record(case, tmp_path / "set")
    epochs = {}
    for name, start in loaders(case, dataset, tmp_path, batch_size=5).items():
        batches = list(itertools.islice(start(), 6))
        flat = [torch.cat([part.reshape(len(part), -1).double() for part in batch], 1) for batch in batches]
        epochs[name] = sorted(torch.cat(flat).tolist())
    assert len(epochs["ours"]) == 27
    assert epochs["ours"] == epochs["memmap"] == epochs["ram"]


def test_rows_are_written(tmp_path):
    run(tmp_path / "rows.json", cases=CASES, rounds=1, seconds=0.001, folder=tmp_path)
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [row["name"] for row in rows] == ["low", "image"]
    for row in rows:
        assert row["unit"] == "windows/s"
        assert row["peer_ratios"].keys() == {"memmap", "ram"}
        assert row["limit_ratio"] == row["peer_ratios"]["ram"]
