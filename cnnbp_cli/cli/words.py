"""Words that people try which are no commands and no options, and what does what they want."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

_TRAIN = "`cnnbp train CONFIG` trains a network, and `--resume` goes on"
_NEW = "`cnnbp init TEMPLATE` copies a config to start from, and `cnnbp init` lists them"
_RUNS = "`cnnbp runs` lists the runs of a folder, and `cnnbp compare RUN RUN` shows what sets some apart"
_DATA = "`cnnbp data info CONFIG` shows a data set, and `cnnbp data fetch NAME` downloads one"
_EXPORT = "`cnnbp export RUN FILE` writes the network as ONNX, or its weights as safetensors or npz"
_SUMMARY = "`cnnbp summary CONFIG` shows the layers of a network, and `cnnbp trace CONFIG` its numbers"
_EXPLAIN = "`cnnbp trace CONFIG --cell CELL` explains a number, and `cnnbp diagnose --explain RULE` a finding"
_PLOT = "`cnnbp plot RUN` draws the curves of a run, and `cnnbp trace CONFIG --html FILE` makes a page of a network"
_TEST = "`cnnbp evaluate RUN` measures a trained model, and `cnnbp gradcheck CONFIG` checks the gradients"
_RATE = "`cnnbp train CONFIG --lr RATE` sets the learning rate, and `cnnbp sweep CONFIG --lr 0.01,0.1` tries several"
_CHECK = "`cnnbp validate CONFIG` checks a config, `cnnbp gradcheck CONFIG` gradients, `cnnbp diagnose CONFIG` training"
_CONFIG = "`cnnbp config CONFIG` prints a config with all defaults and overrides, and `cnnbp schema` the format"
_GRADIENTS = (
    "`cnnbp gradnorms CONFIG` shows gradients by layer, and `cnnbp trace CONFIG` each number of a backward pass"
)
_PREDICT = "`cnnbp predict RUN IMAGE` classifies pictures"
_WATCH = "`cnnbp train CONFIG --grad-norms` watches every layer, and `cnnbp gradnorms RUN` shows what a run recorded"
_PROFILE = "`cnnbp profile CONFIG` measures the time of each layer"
_LOAD = "`cnnbp train CONFIG --weights FILE` begins with the weights of a file, from PyTorch for one"

_DELETE = "a run is a folder: delete it like any other; `cnnbp runs` lists them"
_BOARD = "`cnnbp export RUN --to tensorboard DIR` writes curves for TensorBoard, and `cnnbp plot RUN` draws them"
_COMPARE = "`cnnbp compare RUN RUN` shows what sets runs apart"
_INSTALL = "`cnnbp init` lists the networks there are, and `cnnbp data fetch NAME` downloads a data set"

_TOPICS = {
    _TRAIN: ("fit", "learn", "resume", "continue", "run", "start"),
    _NEW: (
        "new",
        "create",
        "template",
        "templates",
        "example",
        "examples",
        "generate",
        "quickstart",
        "configs",
        "copy",
    ),
    _RUNS: ("list", "ls", "history", "log", "logs", "status", "experiments", "results", "ps"),
    _DATA: ("download", "dataset", "datasets", "mnist", "get", "fetch", "info"),
    _EXPORT: ("convert", "save", "onnx", "dump", "weights"),
    _SUMMARY: ("show", "inspect", "model", "layers", "describe", "print", "graph", "params", "parameters", "network"),
    _EXPLAIN: ("explain", "why", "cell"),
    _PLOT: ("visualize", "visualise", "view", "draw", "curves", "chart", "open", "html", "serve", "ui"),
    _TEST: ("test", "eval", "score", "accuracy", "benchmark"),
    _RATE: ("lr", "learning-rate", "lr-find", "find-lr", "tune", "search", "grid", "hyperparameters", "optimize"),
    _CHECK: ("check", "verify", "lint", "doctor", "debug"),
    _CONFIG: ("set", "options", "settings", "defaults", "edit", "override"),
    _GRADIENTS: ("gradients", "gradient", "grad", "grads", "backward", "backprop", "forward"),
    _PREDICT: ("infer", "inference", "classify", "recognize", "apply", "detect"),
    _DELETE: ("rm", "delete", "remove", "clean", "prune"),
    _BOARD: ("tensorboard", "board", "wandb", "mlflow"),
    _COMPARE: ("diff", "difference"),
    _INSTALL: ("install", "pull", "add", "clone"),
    _WATCH: ("watch", "monitor", "norms", "stats"),
    _PROFILE: ("time", "speed", "bench", "timing", "perf"),
    _LOAD: ("load", "pretrained", "finetune", "fine-tune"),
}

HINTS = {word: hint for hint, words in _TOPICS.items() for word in words}
"""What to call instead of a command that there is not."""

ARGUMENTS = ("config", "cfg", "c", "model", "m", "arch", "network", "net", "file", "f")
"""Options of other programs whose value is an argument here."""

_CPU = "cnnbp computes with NumPy, on the CPU; `--workers N` shares each batch among N processes"
_LESS = "`--quiet` shows less, and `--format json` shows all that happens"
_CHECKED = "`cnnbp validate CONFIG --data` checks a config and its data without training"

ABSENT = {
    **dict.fromkeys(("gpu", "gpus", "device", "cuda", "mps", "tpu", "cpu", "no-cuda", "accelerator"), _CPU),
    **dict.fromkeys(
        ("amp", "fp16", "half", "bf16", "compile"), "all numbers are float32, or float64 with `--set dtype=float64`"
    ),
    **dict.fromkeys(("v", "vv", "verbose", "debug", "log-level"), _LESS),
    **dict.fromkeys(("dry-run", "dryrun", "check", "n"), _CHECKED),
    **dict.fromkeys(("tensorboard", "logdir", "log-dir", "wandb", "logger"), _BOARD),
}
"""Options of other programs for what is done otherwise here, or not at all."""

KEYS = {
    **dict.fromkeys(("optimizer", "optim", "opt"), "train.optimizer"),
    **dict.fromkeys(("loss", "criterion", "loss-function"), "train.loss"),
    **dict.fromkeys(("schedule", "scheduler", "lr-scheduler", "lr-schedule", "sched"), "train.schedule"),
    **dict.fromkeys(("momentum",), "train.optimizer.momentum"),
    **dict.fromkeys(("weight-decay", "wd", "l2"), "train.optimizer.weight_decay"),
    **dict.fromkeys(("label-smoothing", "smoothing"), "train.label_smoothing"),
    **dict.fromkeys(("clip", "clip-norm", "clip-grad", "grad-clip", "max-norm"), "train.clip_norm"),
    **dict.fromkeys(("patience", "early-stopping"), "train.early_stopping.patience"),
    **dict.fromkeys(("checkpoint-every", "save-every", "save-freq"), "train.checkpoint_every"),
    **dict.fromkeys(("validation", "val-split", "validation-split", "val"), "data.validation"),
    **dict.fromkeys(("data", "dataset", "data-set", "source"), "data.source"),
    **dict.fromkeys(("data-dir", "data-path", "root", "path"), "data.path"),
    **dict.fromkeys(("imgsz", "img-size", "image-size", "input-shape", "input-size"), "model.input"),
    **dict.fromkeys(("init", "initializer"), "model.init"),
    **dict.fromkeys(("dtype", "precision"), "dtype"),
    **dict.fromkeys(("name", "exp-name", "run-name"), "name"),
}
"""Options of other programs whose value is a key of the config here."""

_OPTIONS = {
    **dict.fromkeys(("output", "output-dir", "outdir", "o", "dir", "save", "save-dir", "run"), "out"),
    **dict.fromkeys(("continue", "restart", "r"), "resume"),
    **dict.fromkeys(("silent", "s"), "quiet"),
    **dict.fromkeys(("override", "param", "option", "grid", "values"), "set"),
    **dict.fromkeys(("json", "csv", "output-format"), "format"),
    **dict.fromkeys(("e", "num-epochs", "n-epochs", "epoch"), "epochs"),
    **dict.fromkeys(("b", "batch-size", "batchsize"), "batch-size"),
    **dict.fromkeys(("num-workers", "n-workers", "processes", "threads", "jobs"), "workers"),
}


_MORE = {
    **dict.fromkeys(("eps", "epsilon", "h", "delta"), ("step",)),
    **dict.fromkeys(("tol", "atol", "rtol"), ("tolerance",)),
    **dict.fromkeys(("format", "onnx", "type"), ("to",)),
    **dict.fromkeys(("threshold", "min-acc"), ("min-accuracy",)),
    **dict.fromkeys(("pretrained", "checkpoint", "ckpt", "load"), ("weights",)),
    **dict.fromkeys(("topk", "top-k", "k"), ("top",)),
    **dict.fromkeys(("overwrite", "y"), ("force",)),
}
"""What some commands call them."""

LIKE = 0.75
"""From which likeness on an option may be what was meant."""


def spelled_out(words: Sequence[str]) -> list[str]:
    """Return a call with `help …` and `version` as the options that they stand for."""
    if words[:1] == ["help"]:
        return [*words[1:], "--help"]
    return ["--version"] if [*words] == ["version"] else [*words]


def options_meant(option: str, known: Iterable[str]) -> list[str]:
    """Return the options, of those that there are, that other programs call so: `--bs` is `--batch-size`."""
    from cnnbp_cli.config.errors import SYNONYMS

    name = option.lstrip("-").replace("_", "-").lower()
    word = SYNONYMS.get(name.replace("-", "_"), name).replace("_", "-")
    there = [one for one in known if one.startswith("--")]
    words = dict.fromkeys((word, _OPTIONS.get(name, word), *_MORE.get(name, ())))
    if found := [f"--{one}" for one in words if f"--{one}" in there]:
        return found
    if name in {*ABSENT, *KEYS, *ARGUMENTS} or len(name) < 3:
        return []
    from difflib import get_close_matches

    begun = [one for one in there if one.startswith(f"--{name}")]
    return begun if len(begun) == 1 else get_close_matches(f"--{name}", there, n=2, cutoff=LIKE)
