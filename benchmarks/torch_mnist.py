"""The same training as `mnist99.yaml`, by PyTorch, written for speed: the whole data set is one tensor in memory.

python torch_mnist.py FOLDER
"""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch_nets import lenet5

EPOCHS, BATCH, PEAK_RATE, WEIGHT_DECAY = 3, 128, 0.01, 0.01


def read(folder: Path, name: str, header: int) -> np.ndarray:
    packed = folder / f"{name}.gz"
    content = gzip.decompress(packed.read_bytes()) if packed.exists() else (folder / name).read_bytes()
    return np.frombuffer(content, np.uint8, offset=header)


def split(folder: Path, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    images = read(folder, f"{name}-images-idx3-ubyte", 16).reshape(-1, 1, 28, 28)
    labels = read(folder, f"{name}-labels-idx1-ubyte", 8)
    return torch.from_numpy(images.copy()), torch.from_numpy(labels.astype(np.int64))


def main(folder: Path) -> None:
    torch.manual_seed(0)
    (images, labels), (test_images, test_labels) = split(folder, "train"), split(folder, "t10k")
    floats = images.float()
    mean, std = floats.mean(), floats.std()
    images = ((floats - mean) / std).to(memory_format=torch.channels_last)
    test_images = ((test_images.float() - mean) / std).to(memory_format=torch.channels_last)
    model = lenet5().to(memory_format=torch.channels_last)
    loss_of = nn.CrossEntropyLoss()
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=WEIGHT_DECAY, fused=True)
    steps = EPOCHS * -(-len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=steps, cycle_momentum=False)
    for _ in range(EPOCHS):
        for chosen in torch.randperm(len(images)).split(BATCH):
            optimizer.zero_grad()
            loss_of(model(images[chosen]), labels[chosen]).backward()
            optimizer.step()
            schedule.step()
    model.eval()
    with torch.inference_mode():
        right = sum(
            (model(x).argmax(1) == y).sum().item()
            for x, y in zip(test_images.split(1000), test_labels.split(1000), strict=True)
        )
    print(json.dumps({"test_accuracy": right / len(test_labels)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
