"""Random networks whose gradients are right: the check must not complain about any; `make proof` tries more."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from proof.networks import networks

from cnnbp_cli.gradient_check.check import gradcheck


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(example=networks())
def test_no_false_alarm(example):
    model, images, labels = example.build()
    report = gradcheck(model, images, labels)
    assert [check for check in report.parameters if check.status == "wrong"] == []
    assert report.max_relative_error <= report.tolerance
