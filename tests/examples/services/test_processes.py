"""The services as processes: each starts with `python -m`, says where it is, and survives being killed."""

import asyncio
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
from PIL import Image

from examples.claims.services.photos.drawing import draw
from examples.claims.services.photos.store import AN_HOUR, PhotoStore
from tests.postgres.servers import free_port

ROOT = Path(__file__).parents[3]


def environment(**variables):
    """This process's, without the settings of a demo that runs beside the tests."""
    places = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    rest = {key: value for key, value in os.environ.items() if not key.startswith("CLAIMS_")}
    return rest | {"PYTHONPATH": os.pathsep.join(filter(None, places))} | variables


@contextmanager
def process(name, home, **variables):
    """A service of its own port; its address is what it prints."""
    with subprocess.Popen(
        [sys.executable, "-m", f"examples.claims.services.{name}", "--port", "0", "--home", str(home)],
        env=environment(**variables),
        stdout=subprocess.PIPE,
        text=True,
    ) as running:
        try:
            said = running.stdout.readline()
            assert " http://127.0.0.1:" in said, said
            yield running, said.split()[-1]
        finally:
            running.kill()


@pytest.mark.parametrize("name", ["fraud", "photos", "bank", "post"])
def test_a_service_starts_with_one_command_and_says_where(tmp_path, name):
    home = tmp_path / "made" / "by it"
    with process(name, home, CLAIMS_FRAUD_KEY="a-key") as (_, url):
        answer = httpx2.get(f"{url}/health", trust_env=False, timeout=60)
        assert answer.json() == {"service": name, "mode": "on"}
        assert home.stat().st_mode & 0o077 == 0


def test_a_process_that_is_killed_while_a_photo_comes_has_stored_nothing_of_it(tmp_path):
    uploading = (
        "import asyncio, sys, pathlib\n"
        "from examples.claims.services.photos.drawing import draw\n"
        "from examples.claims.services.photos.store import PhotoStore\n"
        "photo = draw(1, fine=1).jpeg()\n"
        "async def slowly():\n"
        "    yield photo[:-100]\n"
        "    print('nearly', flush=True)\n"
        "    await asyncio.Event().wait()\n"
        "asyncio.run(PhotoStore(pathlib.Path(sys.argv[1])).add(slowly()))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", uploading, str(tmp_path)], env=environment(), stdout=subprocess.PIPE, text=True
    ) as running:
        try:
            assert running.stdout.readline() == "nearly\n"
        finally:
            running.kill()
    [left] = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert left.parent.name == "drafts"
    os.utime(left, (0, left.stat().st_mtime - 2 * AN_HOUR))
    assert PhotoStore(tmp_path).sweep() == 1


def test_a_bank_that_is_killed_between_payments_has_paid_each_key_once(tmp_path):
    payments = [
        ({"claim_id": f"C-{number}", "amount": 1 + number, "account": "DE02"}, f"C-{number}/payment-1")
        for number in range(40)
    ]
    for lives in (15, 30, None):  # killed after so many answers, then started again
        with (
            process("bank", tmp_path) as (running, url),
            httpx2.Client(base_url=url, trust_env=False, timeout=60) as http,
        ):
            for body, key in payments[:lives]:
                assert http.post("/payments", json=body, headers={"Idempotency-Key": key}).status_code in (
                    200,
                    201,
                )
            if lives:
                running.kill()
                continue
            found = http.get("/counters").json()
    assert (found["payments"], found["repeats"], found["paid_twice"]) == (40, 45, 0)
    assert found["amount"] == sum(body["amount"] for body, _ in payments)


def test_a_bank_that_is_killed_while_it_answers_has_paid_each_key_once(tmp_path):
    def pay(http, number):
        body = {"claim_id": f"C-{number}", "amount": 1 + number, "account": "DE02"}
        key = {"Idempotency-Key": f"C-{number}/payment-1"}
        try:
            return http.post("/payments", json=body, headers=key).status_code
        except httpx2.TransportError:
            return None

    for lives in (True, True, False):  # killed in the middle of its answers, then started again
        with (
            process("bank", tmp_path) as (running, url),
            httpx2.Client(base_url=url, trust_env=False, timeout=60) as http,
            ThreadPoolExecutor(8) as customers,
        ):
            answers = [customers.submit(pay, http, number) for number in range(60)]
            if lives:
                answers[20].result()
                running.kill()
            codes = [answer.result() for answer in answers]
            if not lives:
                assert set(codes) <= {200, 201}
                found = http.get("/counters").json()
    assert (found["payments"], found["amount"], found["paid_twice"]) == (60, sum(range(1, 61)), 0)


@pytest.mark.long  # it learns twice to see damage
def test_a_photo_desk_that_is_killed_while_it_looks_has_half_stored_nothing(tmp_path):
    async def sent(content):
        yield content

    async def upload():
        store = PhotoStore(tmp_path / "photos")
        return [await store.add(sent(draw(seed, fine=1).jpeg())) for seed in range(8)]

    def look(http, number, digest):
        body = {"claim_id": f"C-{number}", "happened": "2020-01-01", "photos": [digest]}
        try:
            return http.post("/assessments", json=body).json()["photos"][0]
        except httpx2.TransportError:
            return None

    digests = asyncio.run(upload())
    before = []
    for lives in (True, False):
        with (
            process("photos", tmp_path, CLAIMS_PHOTOS=str(tmp_path / "photos")) as (running, url),
            httpx2.Client(base_url=url, trust_env=False, timeout=300) as http,
            ThreadPoolExecutor(4) as claims,
        ):
            answers = [claims.submit(look, http, *numbered) for numbered in enumerate(digests)]
            if lives:
                answers[1].result()
                running.kill()
            found = [answer.result() for answer in answers]
            before = before or found
    assert all(found)
    assert all(first in (None, second) for first, second in zip(before, found, strict=True))
    for digest in digests:
        Image.open(PhotoStore(tmp_path / "photos").heat_map(digest)).load()


def test_the_children_of_a_demo_that_is_killed_end(tmp_path):
    demo = (
        "import asyncio\n"
        "from examples.claims.connections import home\n"
        "from examples.claims.demo.processes import services\n"
        "from examples.claims.demo.server import Server\n"
        "async def run():\n"
        "    async with services(['bank'], any_port=True) as urls, "
        f"Server(home() / 'hub.db', {free_port()}) as server:\n"
        "        print(urls['bank'], server.url, flush=True)\n"
        "        await asyncio.Event().wait()\n"
        "asyncio.run(run())\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", demo],
        env=environment(CLAIMS_HOME=str(tmp_path)),
        stdout=subprocess.PIPE,
        text=True,
    ) as running:
        try:
            urls = running.stdout.readline().split()
        finally:
            running.kill()
    assert len(urls) == 2
    for url in urls:
        while answers(url):
            time.sleep(0.05)


def answers(url):
    """Whether a process listens there; the test's own timeout ends a wait for one that stays."""
    try:
        httpx2.get(url, trust_env=False, timeout=60)
    except httpx2.TransportError:
        return False
    return True
