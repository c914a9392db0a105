"""The report on a data set: every number against its definition, and as plain JSON."""

import json

import numpy as np

from cnnbp_cli.data.dataset import Dataset, Normalization, Split, load_dataset
from cnnbp_cli.data.info import data_info


def test_whole_report(tmp_path, data_config):
    path = tmp_path / "set.npz"
    images = np.array([0, 0, 4, 8], np.uint8).reshape(4, 1, 1, 1).repeat(2, axis=3)
    np.savez(path, x_train=images, y_train=[0, 2, 2, 2], x_test=images[2:], y_test=[1, 1])
    dataset = load_dataset(data_config("npz", path=path), (1, 1, 2), seed=0)
    report = data_info(dataset).to_dict()
    assert json.loads(json.dumps(report)) == {
        "name": f"npz {path}",
        "shape": [1, 1, 2],
        "classes": 3,
        "normalization": {
            "kind": "standard",
            "mean": [3.0],
            "std": [11**0.5],
            "minimum": 0.0,
            "maximum": 8.0,
            "light_edges": None,
        },
        "splits": [
            {
                "name": "train",
                "count": 4,
                "dtype": "uint8",
                "minimum": 0.0,
                "maximum": 8.0,
                "mean": [3.0],
                "std": [11**0.5],
                "per_class": {"0": 1, "2": 3},
                "bytes": 4 * 2 + 4 * 8,
            },
            {
                "name": "test",
                "count": 2,
                "dtype": "uint8",
                "minimum": 4.0,
                "maximum": 8.0,
                "mean": [6.0],
                "std": [2.0],
                "per_class": {"1": 2},
                "bytes": 2 * 2 + 2 * 8,
            },
        ],
        "bytes": 60,
        "class_names": None,
    }


def test_targets_have_no_classes():
    split = Split(np.zeros((3, 2, 4, 4), np.float32), np.zeros((3, 5)))
    info = data_info(Dataset(split, split, None, Normalization.fit("unit", split.images), None, "targets"))
    assert [(part.name, part.per_class, part.mean) for part in info.splits] == [
        ("train", None, (0.0, 0.0)),
        ("validation", None, (0.0, 0.0)),
    ]
    assert (info.classes, info.to_dict()["splits"][0]["per_class"]) == (None, None)
