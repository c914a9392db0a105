"""What the data tests share: a config's `data` section, and no proxies."""

from collections.abc import Callable

import pytest

from cnnbp_cli.config.schema import AnyData, Csv, Idx, MnistSubset, Npy, Npz, Pictures, Synthetic


@pytest.fixture
def data_config() -> Callable[..., AnyData]:
    """Return a builder of the config's `data` section; synthetic sets are small unless a size is given."""
    small = {"train": 100, "test": 40, "image": (1, 12, 12), "classes": 10}
    sources = {"mnist-subset": MnistSubset, "idx": Idx, "npy": Npy, "npz": Npz, "csv": Csv, "synthetic": Synthetic}
    sources["folder"] = Pictures

    def build(source: str, **fields: object) -> AnyData:
        return sources[source](**((small if source == "synthetic" else {}) | fields))

    return build


@pytest.fixture
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reach servers of this machine directly, whatever the environment says."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
