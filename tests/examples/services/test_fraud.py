"""Fraud scoring: what it sees, what it answers, and the figures of its README."""

import re
from pathlib import Path

import msgspec
import pytest

from examples.claims.services import fraud
from examples.claims.services.fraud.circumstances import TRAITS, Circumstances
from examples.claims.services.fraud.figures import figures_of
from examples.claims.services.fraud.model import FraudModel
from examples.claims.services.fraud.service import KEY, make
from examples.claims.services.fraud.training import cases, generated
from examples.claims.source import claims_of, made_up

README = Path(fraud.__file__).with_name("README.md").read_text("utf-8")
FIGURES = re.compile(
    r"^generated-.*\nAUC ([\d.]+), Brier score ([\d.]+), calibration error ([\d.]+)$", re.MULTILINE
)
WITH_KEY = {"Authorization": "Bearer a-key"}
PLAIN = {
    "happened": "2026-01-20", "policy_bound": "2016-05-01", "deductible": 500, "umbrella_limit": 0,
    "kind": "Parked Car", "severity": "Minor Damage", "authority": "Police", "police_report": True,
    "bodily_injuries": 0, "witnesses": 2, "injury_amount": 0, "property_amount": 300, "vehicle_amount": 2100,
    "vehicle_year": 2019,
}  # fmt: skip
ODD = PLAIN | {
    "policy_bound": "2026-01-02", "severity": "Major Damage", "police_report": False, "authority": None,
    "witnesses": 0, "injury_amount": 9_000, "vehicle_amount": 61_000, "umbrella_limit": 5_000_000,
}  # fmt: skip


@pytest.fixture(scope="module")
def known():
    return generated()


@pytest.fixture(scope="module")
def model(known):
    return FraudModel(known)


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv(KEY, "a-key")
    monkeypatch.delenv("CLAIMS_CSV", raising=False)
    return tmp_path


def score(model, **changed):
    return model.score(msgspec.convert(PLAIN | changed, Circumstances))


async def test_a_claim_gets_a_score_with_five_reasons(home, serving):
    async with serving(make(home)) as client:
        plain, odd = [
            (await client.post("/score", json=claim, headers=WITH_KEY)).json() for claim in (PLAIN, ODD)
        ]
    assert plain["score"] < 0.2 < 0.8 < odd["score"]
    assert plain["model"] == odd["model"] and plain["base"] == odd["base"]
    assert 0 < odd["confidence"] <= 1
    points = [abs(reason["points"]) for reason in odd["reasons"]]
    assert len(points) == 5 and points == sorted(points, reverse=True)
    said = {reason["text"]: reason["points"] for reason in odd["reasons"]}
    assert said["The policy is 18 days old"] > 0
    assert said["$9,000 are for injuries, and no one is reported hurt"] > 0


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer another"}, {"Authorization": "a-key"}])
async def test_without_the_key_there_is_no_score(home, serving, headers):
    async with serving(make(home)) as client:
        answer = await client.post("/score", json=PLAIN, headers=headers)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")


def test_without_a_key_the_service_does_not_start(home, monkeypatch):
    monkeypatch.delenv(KEY)
    with pytest.raises(SystemExit, match=KEY):
        make(home)


@pytest.mark.parametrize(
    "field", ["age", "insured_sex", "insured_occupation", "insured_hobbies", "incident_city"]
)
async def test_a_trait_of_a_person_is_rejected(home, serving, field):
    async with serving(make(home)) as client:
        answer = await client.post("/score", json=PLAIN | {field: "x"}, headers=WITH_KEY)
        assert answer.status_code == 422 and field in answer.json()["detail"]


@pytest.mark.parametrize("body", [b"", b"[]", b'{"happened": "yesterday"}', b'{"happened": "2026-01-01"}'])
async def test_what_is_no_claim_is_rejected(home, serving, body):
    async with serving(make(home)) as client:
        assert (await client.post("/score", content=body, headers=WITH_KEY)).status_code == 422


def test_a_reason_says_how_the_score_would_differ(model):
    """Each circumstance that the law of the generated cases holds for suspicious raises the score."""
    plain = score(model).score
    for suspicious in (
        {"severity": "Major Damage"}, {"policy_bound": "2026-01-02"}, {"witnesses": 0}, {"injury_amount": 900},
        {"police_report": None}, {"umbrella_limit": 1},
    ):  # fmt: skip
        assert score(model, **suspicious).score > plain, suspicious


def test_values_that_no_case_had_have_no_weight_of_their_own(model):
    found = score(
        model, kind="Hail", severity="Unknown", authority="Coast Guard", witnesses=40, vehicle_year=2099
    )
    assert 0 < found.score < 1
    assert all("None" not in reason.text for reason in found.reasons)


def test_every_trait_has_words_for_every_claim():
    for claim in claims_of(made_up(200, seed=3)):
        seen = Circumstances.of(claim)
        assert all(trait.words(seen)[0].isupper() or trait.words(seen)[0] == "$" for trait in TRAITS)
        assert msgspec.json.decode(msgspec.json.encode(seen), type=Circumstances) == seen


def test_the_same_cases_make_the_same_model_and_others_another(known, model):
    again = FraudModel(generated())
    claim = known.claims[3]
    assert again.score(claim) == model.score(claim)
    assert FraudModel(generated(seed=9)).name != model.name


def test_the_figures_of_the_readme_are_those_of_the_generated_cases(known):
    found = figures_of(known)
    auc, brier, error = map(float, FIGURES.search(README).groups())
    assert auc == pytest.approx(found.auc, abs=0.02)
    assert brier == pytest.approx(found.brier, abs=0.02)
    assert error == pytest.approx(found.calibration_error, abs=0.02)
    assert found.auc > 0.7 and found.calibration_error < 0.03


def test_real_cases_come_from_a_csv_with_their_ends(tmp_path):
    rows = [row | {"fraud_reported": "?YNNN"[number % 5]} for number, row in enumerate(made_up(250))]
    found = cases(_csv(tmp_path, rows))
    assert found.name.startswith("csv-") and (len(found.claims), sum(found.fraudulent)) == (200, 50)
    assert 0 < FraudModel(found).score(found.claims[0]).score < 1


@pytest.mark.parametrize("ends", [None, "Y", "N", "YN"])
def test_a_csv_with_too_few_known_ends_leaves_the_generated_cases(tmp_path, known, ends):
    rows = [
        row | ({"fraud_reported": ends[number % len(ends)]} if ends else {})
        for number, row in enumerate(made_up(60))
    ]
    assert cases(_csv(tmp_path, rows)).name == known.name


def _csv(folder, rows):
    path = folder / "claims.csv"
    path.write_text("\n".join([",".join(rows[0]), *(",".join(row.values()) for row in rows)]))
    return path
