"""The laws on a few hundred generated models, always the same ones, a few of them each time; ``make fuzz`` tries thousands of others."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calibration.errors import InputError
from tests.generated.choices import Choices, replayed, seeded, shrunk
from tests.generated.fuzz import main
from tests.generated.jobs import CPU, job_fault
from tests.generated.laws import REFUSED, broken_laws, unsound
from tests.generated.models import Generated, generate

MODELS = 200
FEW_MODELS = 20
JOBS = 6


@st.composite
def models(draw: st.DrawFn) -> Generated:
    """Sound models; hypothesis draws every choice, so that it finds the plainest model that breaks a law."""
    return generate(Choices(lambda bound: draw(st.integers(0, bound - 1))))


def check_laws(made: Generated) -> None:
    why = unsound(made)
    assert why is None or why.startswith(REFUSED)
    if why is None:
        assert broken_laws(made) == []


@settings(max_examples=FEW_MODELS, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(models())
def test_a_few_models_keep_the_laws(made: Generated) -> None:
    check_laws(made)


@pytest.mark.long
@settings(max_examples=MODELS, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(models())
def test_every_sound_model_keeps_the_laws(made: Generated) -> None:
    check_laws(made)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(1, JOBS))])
def test_a_whole_job_builds_an_engine_or_refuses_the_model(seed: int, tmp_path: Path) -> None:
    made = generate(seeded(seed))
    assert unsound(made) is None
    ended, fault = job_fault(made, CPU, tmp_path)
    assert fault is None
    assert ended in ("improved", "baseline_kept") or ended.startswith("refused: model: ")


def test_a_seed_and_a_replay_make_the_same_model_again() -> None:
    choices = seeded(5)
    first, again = generate(choices).model, generate(seeded(5)).model
    assert first.SerializeToString(deterministic=True) == again.SerializeToString(deterministic=True)
    assert generate(replayed(choices.made)).model == first


def test_seeds_reach_eighty_operators_every_opset_and_every_float_type() -> None:
    made = [generate(seeded(seed)) for seed in range(400)]
    operators = {name for one in made for name in one.operators}
    assert len(operators) >= 100
    assert {one.model.opset_import[0].version for one in made} == set(range(9, 24))
    assert {2.0**-24, 2.0**-11, 2.0**-8} == {one.unit for one in made}
    assert any(one.batch for one in made)
    assert any(len(one.outputs) > 2 for one in made)
    assert any(one.model.functions for one in made)


def test_hardly_any_model_is_one_that_onnxruntime_does_not_run() -> None:
    assert sum(unsound(generate(seeded(seed))) is not None for seed in range(100)) <= 1


def test_choices_shrink_to_what_still_fails() -> None:
    assert shrunk((4, 9, 3, 7, 1, 9, 2), lambda made: made.count(9) >= 1) == (9,)


def test_the_command_counts_models_and_keeps_findings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tests.generated.fuzz.broken_laws", _broken)
    assert main(["--seed", "3", "--count", "2", "--keep", str(tmp_path)]) == 1
    said = capfd.readouterr().out
    assert "seed 3, laws: preparing: broken on purpose" in said
    assert "2 findings in 2 models" in said
    assert (tmp_path / "laws-4.onnx").exists()


def test_a_refusal_is_no_finding(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("tests.generated.fuzz.broken_laws", _refused)
    assert main(["--count", "1"]) == 0
    assert "refused: node '...' is not known" in capfd.readouterr().out


def _broken(made: Generated) -> list[str]:
    return ["preparing: broken on purpose"]


def _refused(made: Generated) -> list[str]:
    raise InputError("node 'a' is not known", fix="none")
