"""Erase a claimant: their record, their photos, the messages to them. The histories of their claims stay as they are.

    python -m examples.claims.erasing CLAIM --server http://localhost:7071 --key KEY

It runs where the insurer's files are (CLAIMS_HOME), and asks the services at CLAIMS_PHOTOS_URL and CLAIMS_POST_URL.
A repeat has no effect, so repeat it when a service was away. A claim that is open goes on without the person.
"""

import argparse
import asyncio
import os
import sys
from typing import Any

import httpx2

import perdure as df
from examples.claims import album, connections
from examples.claims.people import People

PATIENCE = 30.0  # seconds until a service counts as away


class NoClaim(Exception):
    """There is no such claim, or it has no claimant."""


async def erase(claim_id: str, client: df.Client, people: People, desks: list[httpx2.AsyncClient]) -> None:
    """Erase the claimant of a claim: first at the services, so that a record without an end is tried again.

    `desks` are the services that keep something of a claim. Raises NoClaim, and HTTPError if a desk is away.
    """
    claim = await client.get_status(claim_id, show_input=True)
    person = _person_in(claim.input) if claim is not None else ""
    if not person:
        raise NoClaim(f"there is no claim {claim_id} with a claimant")
    for desk in desks:
        (await desk.delete(f"/claims/{claim_id}")).raise_for_status()
    album.remove(claim_id)
    await asyncio.to_thread(people.erase, person)


def _person_in(claim: Any) -> str:
    return str(claim.get("person", "")) if isinstance(claim, dict) else ""


async def main() -> int:
    options = _options()
    people = connections.people()
    urls = [url for url in (connections.PHOTOS_URL, connections.POST_URL) if url]
    desks = [httpx2.AsyncClient(base_url=url, timeout=PATIENCE, trust_env=False) for url in urls]
    try:
        async with df.connect(options.server, key=options.key) as client:
            await erase(options.claim, client, people, desks)
    except (NoClaim, httpx2.HTTPError) as error:
        print(f"Not erased: {error}", file=sys.stderr)
        return 1
    finally:
        people.close()
        for desk in desks:
            await desk.aclose()
    print(f"The claimant of {options.claim} is erased. `perdure verify` finds its histories as they were.")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m examples.claims.erasing", description=__doc__)
    parser.add_argument("claim", metavar="CLAIM")
    parser.add_argument("--server", default="http://localhost:7071", metavar="URL")
    parser.add_argument("--key", default=os.environ.get("PERDURE_KEY"), help="default: PERDURE_KEY")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
