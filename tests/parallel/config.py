"""A network with everything that workers have to agree on, small enough to train in milliseconds."""

CONFIG = """
name: team
dtype: float64
data:
  source: synthetic
  kind: digits
  image: [1, 10, 10]
  classes: 4
  train: 61                  # 53 remain: three batches of sixteen and one of five
  test: 21
  validation: 8
  augment: {shift: 1, rotate: 5, scale: 0.1}
model:
  input: [1, 10, 10]
  layers:
    - {type: conv2d, name: conv, filters: 4, kernel_size: 3, padding: same}
    - {type: batch_norm, name: norm}
    - relu
    - {type: max_pool2d, pool_size: 2}
    - {type: conv2d, name: conv2, filters: 5, kernel_size: 3}
    - relu
    - flatten
    - {type: dropout, rate: 0.3}
    - {type: dense, name: hidden, units: 7}
    - {type: batch_norm, name: norm2}
    - relu
    - {type: dense, name: last, units: 4}
  head: softmax
train:
  epochs: 2
  batch_size: 16
  optimizer: {type: sgd, learning_rate: 0.05, momentum: 0.9, weight_decay: 0.001}
  clip_norm: 2.0
  workers: 2
"""

SHARED = (
    "model.layers=[{type: conv2d, name: stem, filters: 4, kernel_size: 3, padding: same, bias: false}, "
    "{type: batch_norm, name: norm}, relu, {type: conv2d, name: step, filters: 4, kernel_size: 3, padding: same}, "
    "relu, {share: step}, {share: norm}, relu, {type: max_pool2d, pool_size: 2}, {share: step}, flatten, "
    "{type: dense, name: wide, units: 100}, relu, {share: wide}, relu, {type: dense, units: 4}]"
)
"""Layers that are used several times, batch norm among them."""

SEVERAL_LOSSES = (
    "model.layers=[{type: conv2d, name: stem, filters: 4, kernel_size: 3}, {type: batch_norm, name: norm}, relu, "
    "{type: global_avg_pool2d, name: low}, {type: dense, name: side, units: 4}, "
    "{type: conv2d, name: step, filters: 4, kernel_size: 3, inputs: [relu_1]}, relu, flatten, "
    "{type: dropout, rate: 0.3}, {type: dense, name: deep, units: 4}, batch_norm, relu, "
    "{type: dense, name: end, units: 4}]",
    "train.losses=[{layer: side, weight: 0.3}, {layer: end}, {layer: deep, weight: 0.5, loss: mse}]",
)
"""Losses at three layers, one of which another layer reads."""
