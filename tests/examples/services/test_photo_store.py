"""Uploads of photos: whole or not at all, by content, within limits, and shown without their metadata."""

import io
import os
import struct
import zlib
from datetime import datetime

import pytest
from PIL import Image

from examples.claims.services.photos.drawing import draw, jpeg_of
from examples.claims.services.photos.store import (
    AN_HOUR,
    MOST_BYTES,
    PhotoRefused,
    PhotoStore,
    Refusal,
    check_number,
    opened,
)
from examples.claims.services.photos.taken import taken_at

TAKEN = datetime(2026, 11, 26, 17, 42)
PICTURE = draw(1, fine=1).picture
JPEG = jpeg_of(PICTURE, TAKEN)


async def sent(data, size=1000):
    for start in range(0, len(data), size):
        yield data[start : start + size]


def files_in(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def png(picture=PICTURE, **options):
    file = io.BytesIO()
    picture.save(file, "PNG", **options)
    return file.getvalue()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(side):
    """A PNG of `side` by `side` black pixels in few bytes."""
    rows = zlib.compress(bytes((side + 7) // 8 + 1) * side, 9)
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def segment(kind, data, photo=JPEG):
    """A JPEG with one more segment, right after its beginning."""
    return photo[:2] + bytes([0xFF, kind]) + struct.pack(">H", len(data) + 2) + data + photo[2:]


async def test_a_photo_is_stored_under_its_digest_and_shown_without_its_metadata(tmp_path):
    store = PhotoStore(tmp_path)
    digest = await store.add(sent(JPEG), len(JPEG))
    assert digest in store
    assert store.original(digest).read_bytes() == JPEG
    assert taken_at(store.original(digest)) == TAKEN
    with Image.open(store.clean(digest)) as clean:
        assert (clean.format, clean.size, dict(clean.getexif())) == ("JPEG", PICTURE.size, {})
    assert taken_at(store.clean(digest)) is None
    assert len(files_in(tmp_path)) == 2
    assert store.original(digest).stat().st_mode & 0o077 == 0 or tmp_path.stat().st_mode & 0o077 == 0


async def test_the_same_photo_again_is_the_same_photo(tmp_path):
    store = PhotoStore(tmp_path)
    assert await store.add(sent(JPEG)) == await store.add(sent(JPEG, 77))
    assert len(files_in(tmp_path)) == 2


async def test_a_photo_is_shown_as_the_camera_was_held_and_at_most_1280_px_wide(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    file = io.BytesIO()
    PICTURE.resize((2000, 1000)).save(file, "JPEG", exif=exif)
    store = PhotoStore(tmp_path)
    digest = await store.add(sent(file.getvalue()))
    with Image.open(store.clean(digest)) as clean:
        assert clean.size == (500, 1000) or clean.size == (640, 1280)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1"])
async def test_every_kind_of_pixel_is_a_photo(tmp_path, mode):
    picture = PICTURE.convert(mode)
    data = jpeg_of(picture) if mode in ("L", "CMYK") else png(picture)
    store = PhotoStore(tmp_path)
    with Image.open(store.clean(await store.add(sent(data)))) as clean:
        assert clean.mode == "RGB"


GIF = io.BytesIO()
PICTURE.save(GIF, "GIF")

REFUSED = {
    "text": (b"this is not an image", Refusal.NOT_A_PHOTO),
    "nothing": (b"", Refusal.NOT_A_PHOTO),
    "another kind of picture": (GIF.getvalue(), Refusal.NOT_A_PHOTO),
    "a page that is called a photo": (b"<html><script>alert(1)</script>", Refusal.NOT_A_PHOTO),
    "a drawing that can hold a script": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', Refusal.NOT_A_PHOTO),
    "a beginning only": (JPEG[:2], Refusal.NOT_A_PHOTO),
    "a JPEG that ends too early": (JPEG[: len(JPEG) // 2], Refusal.CUT_OFF),
    "a PNG that ends too early": (png()[:20_000], Refusal.CUT_OFF),
    "an archive behind the photo": (JPEG + b"PK\x03\x04" + bytes(30), Refusal.NOT_A_PHOTO),
    "a page behind the photo": (JPEG + b"<script>alert(1)</script>", Refusal.NOT_A_PHOTO),
    "a program behind the photo": (JPEG + b"MZ\x90\x00", Refusal.NOT_A_PHOTO),
    "a page in a comment": (segment(0xFE, b"*/ <HTML><body onload=x>"), Refusal.NOT_A_PHOTO),
    "a program in the metadata": (segment(0xE1, b"Exif\x00\x00<?php system($_GET[0]);"), Refusal.NOT_A_PHOTO),
    "a document in a PNG": (png()[:33] + chunk(b"teXt", b"%PDF-1.7") + png()[33:], Refusal.NOT_A_PHOTO),
    "an archive behind a PNG": (png() + b"PK\x03\x04", Refusal.NOT_A_PHOTO),
    "100 megapixels": (bomb(10_000), Refusal.TOO_MANY_PIXELS),
    "400 megapixels": (bomb(20_000), Refusal.TOO_MANY_PIXELS),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
async def test_what_is_no_whole_photo_is_refused_in_words_and_leaves_nothing(tmp_path, case):
    data, refusal = REFUSED[case]
    store = PhotoStore(tmp_path)
    with pytest.raises(PhotoRefused) as raised:
        await store.add(sent(data))
    assert raised.value.refusal == refusal
    assert files_in(tmp_path) == []


async def test_the_upload_that_ends_before_its_announced_length_was_cut_off(tmp_path):
    store = PhotoStore(tmp_path)
    with pytest.raises(PhotoRefused, match="the upload was cut off"):
        await store.add(sent(JPEG), len(JPEG) + 1)
    assert files_in(tmp_path) == []


async def test_an_upload_whose_sender_goes_away_leaves_nothing(tmp_path):
    async def broken():
        yield JPEG[:500]
        raise ConnectionError("the telephone is in a tunnel")

    store = PhotoStore(tmp_path)
    with pytest.raises(ConnectionError):
        await store.add(broken())
    assert files_in(tmp_path) == []


async def test_more_than_15_mb_are_refused_before_or_while_they_come(tmp_path):
    taken = 0

    async def endless():
        nonlocal taken
        while True:
            taken += 1
            yield bytes(2**20)

    store = PhotoStore(tmp_path)
    for length in (MOST_BYTES + 1, None):
        with pytest.raises(PhotoRefused, match="too large") as raised:
            await store.add(endless(), length)
        assert raised.value.status == 413
    assert taken == 16
    assert files_in(tmp_path) == []


@pytest.mark.filterwarnings("ignore:::PIL")  # Pillow warns of rubbish, and goes on
@pytest.mark.parametrize(
    "rubbish", [bytes(range(256)), b"II*\x00\xff\xff\xff\xff", b"MM\x00*\x00\x00\x00\x08\xff\xff"]
)
async def test_rubbish_in_the_metadata_does_not_matter(tmp_path, rubbish):
    data = segment(0xE1, b"Exif\x00\x00" + rubbish, jpeg_of(PICTURE))
    store = PhotoStore(tmp_path)
    digest = await store.add(sent(data))
    assert taken_at(store.original(digest)) is None


async def test_the_film_of_a_moving_photo_is_not_another_file(tmp_path):
    data = JPEG + struct.pack(">I", 24) + b"ftypmp42" + bytes(12)
    assert await PhotoStore(tmp_path).add(sent(data))


@pytest.mark.parametrize("text", ["0000:00:00 00:00:00", "2026:13:40 25:61:61", "yesterday", ""])
def test_a_time_that_is_none_is_no_time(tmp_path, text):
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9003] = text
    PICTURE.save(tmp_path / "photo.jpg", exif=exif)
    assert taken_at(tmp_path / "photo.jpg") is None


def test_a_killed_process_leaves_drafts_and_the_next_one_sweeps_the_old_ones(tmp_path):
    store = PhotoStore(tmp_path)
    old, new = tmp_path / "drafts" / "old", tmp_path / "drafts" / "new"
    old.touch()
    new.touch()
    os.utime(old, (0, new.stat().st_mtime - 2 * AN_HOUR))
    assert store.sweep() == 1
    assert files_in(tmp_path) == [new]


async def test_a_photo_is_removed_with_all_that_was_made_from_it(tmp_path):
    store = PhotoStore(tmp_path)
    digest = await store.add(sent(JPEG))
    store.heat_map(digest).touch()
    store.remove(digest)
    assert digest not in store
    assert files_in(tmp_path) == []


@pytest.mark.parametrize("digest", ["", "..", "../../etc/passwd", "A" * 64, "0" * 63])
def test_a_name_that_is_no_digest_is_no_path(tmp_path, digest):
    store = PhotoStore(tmp_path)
    for path in (store.original, store.clean, store.heat_map, store.remove):
        with pytest.raises(ValueError, match="not a SHA-256"):
            path(digest)


def test_a_claim_has_at_most_ten_photos():
    check_number([*map(str, range(10)), "3"])
    with pytest.raises(PhotoRefused, match="10 photos"):
        check_number(map(str, range(11)))


def test_the_picture_has_no_metadata_in_memory_either(tmp_path):
    (tmp_path / "photo").write_bytes(JPEG)
    assert opened(tmp_path / "photo").info == {}
