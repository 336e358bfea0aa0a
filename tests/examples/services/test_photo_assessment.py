"""What the assessment says of photos: sharpness, light, date, earlier claims, damage; and over HTTP."""

import asyncio
import hashlib
import io
from datetime import date, datetime

import numpy as np
import pytest
from imagehash import phash
from numpy.random import default_rng
from PIL import Image, ImageOps

from examples.claims.services.photos import damage, figures
from examples.claims.services.photos.drawing import draw, jpeg_of
from examples.claims.services.photos.pictures import grey_of, pixels_of, small_of
from examples.claims.services.photos.readable import sharpness
from examples.claims.services.photos.resemblance import WINDOWS, Print, distances
from examples.claims.services.photos.service import make
from examples.claims.services.photos.store import PhotoStore

DAY = date(2026, 11, 26)
THAT_EVENING = datetime(2026, 11, 26, 17, 42)
RNG = default_rng(11)
CAR = draw(2, fine=1).picture


@pytest.fixture(scope="module", autouse=True)
def trained():
    """One classifier for the module, from fewer drawings than the service's."""
    damage.DRAWINGS, before = 36, damage.DRAWINGS
    damage.classifier.cache_clear()
    yield damage.classifier()
    damage.DRAWINGS = before
    damage.classifier.cache_clear()


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.delenv("CLAIMS_PHOTOS", raising=False)
    return tmp_path


@pytest.fixture
def ask(home, serving):
    """Store pictures, or files, and ask for their assessment as those of a claim."""

    async def answers(*claims):
        store, found = PhotoStore(home / "photos"), []
        async with serving(make(home)) as client:
            for claim_id, *photos in claims:
                digests = [await store.add(_sent(photo)) for photo in photos]
                body = {"claim_id": claim_id, "happened": DAY.isoformat(), "photos": digests}
                answer = await client.post("/assessments", json=body)
                assert answer.status_code == 200, answer.text
                found.append(answer.json()["photos"])
        return found

    return answers


async def _sent(photo):
    yield photo if isinstance(photo, bytes) else jpeg_of(photo, THAT_EVENING)


async def test_a_photo_of_that_day_shows_damage_in_its_place(ask, home):
    drawing = draw(3, fine=1)
    [[found]] = await ask(("C-1", drawing.picture))
    assert (found["problem"], found["seen_before"], found["taken"]) == ("", None, "2026-11-26T17:42:00")
    assert found["damage"]["share"] > 0 and found["damage"]["confidence"] > 0.6
    left, top, right, bottom = found["damage"]["box"]
    middle = ((left + right) / 2, (top + bottom) / 2)
    assert (
        drawing.damage[0] < middle[0] < drawing.damage[2]
        and drawing.damage[1] < middle[1] < drawing.damage[3]
    )
    assert ", " in found["damage"]["where"]
    with Image.open(PhotoStore(home / "photos").heat_map(found["digest"])) as heat:
        assert (heat.format, heat.mode, heat.size) == ("PNG", "RGBA", (320, 240))
        inside = heat.getpixel((int(middle[0] * 320), int(middle[1] * 240)))
        assert inside[3] > 80 > heat.getpixel((2, 2))[3]


async def test_a_photo_without_damage_says_so(ask):
    [[found]] = await ask(("C-1", draw(6, is_damaged=False, fine=1).picture))
    assert found["damage"]["share"] == 0 and found["damage"]["box"] is None


@pytest.mark.parametrize(
    ("photo", "problem"),
    [
        (jpeg_of(figures.blurred(CAR, RNG, 6)), "too blurred"),
        (jpeg_of(Image.new("RGB", (640, 480), "grey")), "too blurred"),
        (jpeg_of(Image.new("RGB", (1, 1), "white")), "too blurred"),
        (jpeg_of(CAR.resize((4000, 3))), "too blurred"),
        (jpeg_of(figures.darkened(CAR, RNG)), "too dark"),
        (jpeg_of(Image.new("RGB", (640, 480), "black")), "too dark"),
        (jpeg_of(CAR, datetime(2026, 11, 25, 23, 59)), "taken before the accident"),
        (jpeg_of(CAR, datetime(2026, 11, 26, 0, 0)), ""),
        (jpeg_of(CAR), ""),  # it does not say when
        (jpeg_of(CAR.rotate(90, expand=True)), ""),
    ],
)
async def test_a_photo_that_cannot_be_used_has_its_reason(ask, photo, problem):
    [[found]] = await ask(("C-1", photo))
    assert found["problem"] == problem


@pytest.mark.parametrize(
    ("change", "how"),
    [
        (lambda picture, rng: picture, "same"),
        (figures.encoded_again, "re-encoded"),
        (figures.brightened, "re-encoded"),
        (figures.mirrored, "mirrored"),
        (lambda picture, rng: picture.crop((60, 30, 560, 420)), "cropped"),
        (lambda picture, rng: ImageOps.mirror(picture.crop((60, 30, 560, 420))), "cropped"),
    ],
)
async def test_a_photo_of_an_earlier_claim_is_recognised(ask, change, how):
    first, [found] = await ask(("C-1", CAR, draw(4, fine=1).picture), ("C-2", change(CAR, default_rng(3))))
    assert found["problem"] == "we already have this photo"
    seen = found["seen_before"]
    assert (seen["claim_id"], seen["digest"], seen["how"]) == ("C-1", first[0]["digest"], how)
    assert seen["distance"] <= 14


async def test_the_whole_of_an_earlier_crop_is_recognised(ask):
    _, [found] = await ask(("C-1", CAR.crop((60, 30, 560, 420))), ("C-2", CAR))
    assert found["seen_before"]["how"] == "cropped"


async def test_another_car_is_another_photo_and_a_claim_may_repeat_its_own(ask):
    cars = [draw(seed, fine=1).picture for seed in range(20, 28)]
    found = await ask(*((f"C-{number}", car) for number, car in enumerate(cars)), ("C-1", cars[1], cars[1]))
    assert all(photo["seen_before"] is None for photos in found for photo in photos)


async def test_a_repeat_gets_the_same_answer_also_after_a_restart_and_with_later_claims(ask):
    first, second = await ask(("C-1", CAR), ("C-2", CAR))
    assert first[0]["seen_before"] is None and second[0]["seen_before"]["claim_id"] == "C-1"
    assert await ask(("C-1", CAR), ("C-2", CAR)) == [first, second]


async def test_requests_at_once_agree_about_which_claim_was_first(home, serving):
    digest = await PhotoStore(home / "photos").add(_sent(CAR))
    async with serving(make(home)) as client:

        async def seen(claim_id):
            body = {"claim_id": claim_id, "happened": DAY.isoformat(), "photos": [digest]}
            answer = await client.post("/assessments", json=body)
            return claim_id, str(answer.json()["photos"][0]["seen_before"])

        answers = await asyncio.gather(*(seen(f"C-{number % 4}") for number in range(16)))
    assert len(set(answers)) == 4
    assert sum(found == "None" for _, found in set(answers)) == 1


async def test_photos_are_shown_without_metadata_and_what_is_not_there_is_said(home, serving):
    store = PhotoStore(home / "photos")
    digest = await store.add(_sent(CAR))
    async with serving(make(home)) as client:
        shown = await client.get(f"/photos/{digest}.jpg")
        assert shown.headers["content-type"] == "image/jpeg" and b"Exif" not in shown.content
        for path in (
            f"/heat-maps/{digest}.png",
            f"/photos/{'0' * 64}.jpg",
            "/photos/x.jpg",
            "/photos/%2e%2e.jpg",
        ):
            assert (await client.get(path)).status_code == 404
        body = {"claim_id": "C-1", "happened": "2026-11-26", "photos": ["0" * 64]}
        missing = await client.post("/assessments", json=body)
        assert (missing.status_code, missing.json()["detail"]) == (
            404,
            f"the folder of photos has no {'0' * 64}",
        )
        for wrong in (
            {"photos": ["../x"]},
            {"photos": ["0" * 64] * 11},
            {"happened": "today"},
            {"claim_id": ""},
        ):
            assert (await client.post("/assessments", json=body | wrong)).status_code == 400


async def test_the_photos_of_a_claim_are_erased_and_forgotten_but_not_those_of_others(home, serving):
    store, other = PhotoStore(home / "photos"), draw(4, fine=1).picture
    shared, own = await store.add(_sent(CAR)), await store.add(_sent(other))
    changed = await store.add(_sent(figures.mirrored(other, default_rng(1))))
    async with serving(make(home)) as client:

        async def seen(claim_id, digest):
            body = {"claim_id": claim_id, "happened": DAY.isoformat(), "photos": [digest]}
            [found] = (await client.post("/assessments", json=body)).json()["photos"]
            return found["seen_before"] and found["seen_before"]["claim_id"]

        for claim_id, digest in (("C-1", shared), ("C-2", shared), ("C-2", own)):
            await seen(claim_id, digest)
        assert (await client.delete("/claims/C-2")).json() == {"erased": 1}
        assert (await client.delete("/claims/C-2")).json() == {"erased": 0}
        assert shared in store and own not in store
        assert [await seen("C-3", changed), await seen("C-4", shared), await seen("C-5", changed)] == [
            None,
            "C-1",
            "C-3",
        ]


def test_the_hashes_of_windows_are_those_of_imagehash():
    """Made all at once, so they could differ by the bits at the median."""
    small = small_of(CAR)
    made = Print.of(small)
    grey = small.convert("L").resize((160, 120), Image.Resampling.BOX)
    for number in range(0, len(WINDOWS), 7):
        left, top, right, bottom = np.array(WINDOWS[number]) * (160, 120, 160, 120)
        window = grey.resize((32, 32), Image.Resampling.BILINEAR, (left, top, right, bottom))
        for hashes, expected in ((made.windows, window), (made.mirrored_windows, ImageOps.mirror(window))):
            assert distances(hashes[number : number + 1], np.uint64(int(str(phash(expected)), 16)))[0] <= 2


def test_a_drawing_is_the_same_in_every_run_and_another_for_each_seed():
    digests = {hashlib.sha256(draw(seed, fine=1).picture.tobytes()).hexdigest() for seed in (1, 1, 2)}
    assert len(digests) == 2
    assert draw(5, is_damaged=False, fine=1).damage is None
    with Image.open(io.BytesIO(draw(1, fine=1).jpeg())) as photo:
        assert photo.size == (640, 480)


def test_noise_is_not_sharpness():
    noise = Image.fromarray(RNG.normal(128, 4, (240, 320)).clip(0, 255).astype(np.uint8))
    assert sharpness(grey_of(noise)) < 0.5 < sharpness(grey_of(small_of(CAR)))


def test_damage_is_found_on_most_of_a_few_drawings():
    drawings = [draw(seed, seed % 4 != 0, fine=1) for seed in range(100, 124)]
    found = figures.damage_figures(drawings)
    assert found.hit >= 0.85 and found.seen >= 0.75 and found.imagined <= 0.35 and found.overlap > 0.35


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (320, 7), (47, 320), (48, 48), (320, 320)])
def test_a_picture_of_any_size_is_looked_at(size):
    picture = CAR.resize(size)
    found, heat = damage.find(pixels_of(picture))
    assert heat.size >= 1 and 0 <= found.share <= 1
    assert 0 <= sharpness(grey_of(picture)) <= 1
    assert Print.of(picture).windows.shape == (len(WINDOWS),)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_figures_of_the_readme(trained):
    damage.DRAWINGS = 80
    damage.classifier.cache_clear()
    drawings = [draw(figures.FIRST_SEED + seed, seed % 3 != 0) for seed in range(60)]
    found = figures.damage_figures(drawings)
    assert found.hit > 0.9 and found.overlap > 0.45
    pictures = [drawing.picture for drawing in drawings]
    others = [draw(figures.FIRST_SEED + 500 + seed).picture for seed in range(60)]
    seen = figures.resemblance_figures(pictures, others)
    assert seen["mirrored"] == seen["encoded again, smaller"] == 1
    assert seen["cropped"] > 0.5 and seen["a new photo"] <= 0.05
    unreadable = figures.sharpness_figures(pictures)
    assert unreadable["as drawn"] == 0 and unreadable["blurred by 6 px of 640"] == 1
