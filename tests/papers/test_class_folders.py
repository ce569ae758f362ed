import pytest
import torch

from precis.errors import InputError
from precis.papers.class_folders import check_folders, stratified


def test_each_class_is_split_by_itself():
    labels = torch.tensor([0] * 50 + [1] * 10 + [2] * 2)
    train, val = stratified(labels, 0.2, torch.Generator().manual_seed(0))
    assert labels[val].bincount().tolist() == [10, 2, 1] and labels[train].bincount().tolist() == [40, 8, 1]
    assert sorted(torch.cat([train, val]).tolist()) == list(range(62))


def test_a_class_without_a_picture_is_told(tmp_path):
    for name in ("full", "empty", ".hidden"):
        (tmp_path / name).mkdir()
    (tmp_path / "full" / "a.png").write_bytes(b"")
    with pytest.raises(InputError, match="the class folder is empty") as raised:
        check_folders(tmp_path)
    assert "empty" in str(raised.value)
    (tmp_path / "empty" / "deep").mkdir()
    (tmp_path / "empty" / "deep" / "b.png").write_bytes(b"")
    check_folders(tmp_path)
