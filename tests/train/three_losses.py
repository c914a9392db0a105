"""A network with two auxiliary classifiers, small enough to train in milliseconds."""

THREE = """
name: three
seed: 2
dtype: float64
data: {source: synthetic, kind: bars, train: 54, test: 20, validation: 10}
model:
  input: [1, 6, 6]
  blocks:
    side:
      layers:
        - flatten
        - {type: dropout, rate: 0.2}
        - {type: dense, name: logits, units: 2}
  layers:
    - {type: conv2d, name: conv1, filters: 3, kernel_size: 3}
    - {type: relu, name: relu1}
    - {block: side, name: low}
    - {type: conv2d, name: conv2, filters: 4, kernel_size: 3, padding: same, inputs: [relu1]}
    - {type: batch_norm, name: norm}
    - {type: add, name: sum, inputs: [norm, conv2]}
    - {type: relu, name: relu2}
    - {block: side, name: middle}
    - {type: max_pool2d, pool_size: 2, inputs: [relu2]}
    - flatten
    - {type: dense, name: classifier, units: 2}
train:
  epochs: 2
  batch_size: 8
  workers: 1
  optimizer: {type: adam, learning_rate: 0.01}
  losses:
    - {layer: low_logits, weight: 0.3}
    - {layer: classifier}
    - {layer: middle_logits, weight: 0.5, loss: mse}
"""
"""Two auxiliary classifiers; sums and ReLUs that are fused elsewhere have several readers here."""

LAYERS = ["classifier", "low_logits", "middle_logits"]
WEIGHTS = {"low_logits": 0.3, "classifier": 1.0, "middle_logits": 0.5}
