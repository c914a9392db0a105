"""How much memory there is: the machine's, or what a container was given."""

from cnnbp_cli import memory


def test_this_machine_has_some():
    assert 1 << 27 < memory.available() < 1 << 60


def test_a_container_may_have_less(tmp_path, monkeypatch):
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(memory, "_GROUPS", (str(limit), str(tmp_path / "none")))
    whole = memory.available()
    limit.write_text("1000000\n")
    assert memory.available() == 1_000_000
    limit.write_text("max\n")
    assert memory.available() == whole
