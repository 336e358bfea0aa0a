"""The bank, the post and the photo desk as services over HTTP: `services/README.md` has their contracts.

An answer that is not one, such as a proxy's page, counts as no answer: the activity is tried again.
"""

from typing import Any, NewType

import httpx2

from examples.claims.connections import BankAway, Undeliverable
from examples.claims.links import Links
from examples.claims.model import BankAnswer, Claim, Letter, Payment, PaymentOrder, Photo
from examples.claims.people import Claimant

PATIENCE = 10.0  # seconds until an answer counts as lost
A_PAGE = 1_000
REFUSED = 422
GONE = 404
ERASED = "erased"
ON_FILE = "the account on file"  # a garage files claims without an account

Document = NewType("Document", dict[str, Any])


class BankService:
    """The bank at an address."""

    def __init__(self, url: str) -> None:
        self._http = _client(url)

    async def pay(self, order: PaymentOrder, payee: Claimant) -> BankAnswer:
        body = {"claim_id": order.claim_id, "amount": order.amount, "account": payee.account or ON_FILE}
        answer = await self._ask("POST", "/payments", json=body, headers={"Idempotency-Key": order.key})
        if answer.status_code == REFUSED:
            return BankAnswer(refusal=_document(answer)["refusal"])
        return BankAnswer(_payment(_document(answer)))

    async def reverse(self, payment: Payment) -> None:
        await self._ask("POST", "/reversals", json={"key": payment.key})

    async def payments(self) -> dict[str, Payment]:
        found: dict[str, Payment] = {}
        after: int | None = 0
        while after is not None:
            query = {"state": "paid", "after": after, "limit": A_PAGE}
            page = _document(await self._ask("GET", "/payments", params=query))
            found |= {document["key"]: _payment(document) for document in page["payments"]}
            after = page["next"]
        return found

    async def close(self) -> None:
        await self._http.aclose()

    async def _ask(self, method: str, path: str, **how: Any) -> httpx2.Response:
        try:
            answer = await self._http.request(method, path, **how)
            if answer.status_code != REFUSED:
                answer.raise_for_status()
            _document(answer)
        except (httpx2.HTTPError, ValueError) as error:
            raise BankAway(f"the bank does not answer: {error}") from error
        return answer


class PostService:
    """The post at an address. A letter to a claimant has the link to their claim."""

    def __init__(self, url: str, links: Links) -> None:
        self._http = _client(url)
        self._links = links

    async def send(self, letter: Letter, to: Claimant, decide: str = "") -> None:
        message = self._internal(letter, decide) if letter.colleague else self._message(letter, to)
        answer = await self._http.post("/messages", json=message)
        if answer.status_code == REFUSED:
            raise Undeliverable(_document(answer)["refusal"])
        answer.raise_for_status()
        _document(answer)

    async def close(self) -> None:
        await self._http.aclose()

    def _message(self, letter: Letter, to: Claimant) -> dict[str, Any]:
        message: dict[str, Any] = {
            "key": letter.key,
            "kind": "text" if to.phone else "mail",
            "to": f"Customer of {letter.claim_id}",
            "address": to.phone or to.mail or f"customer-of-{letter.claim_id}@example.org",
            "claim_id": letter.claim_id,
            "subject": letter.subject,
            "text": letter.text,
            "links": [],
        }
        if link := self._links.url_of(letter.claim_id):
            about = f"shows {letter.claim_id}, nothing else"
            message["links"] = [{"label": "Your claim", "url": link, "about": about}]
        return message

    def _internal(self, letter: Letter, decide: str) -> dict[str, Any]:
        about = f"decides this task once, as {letter.colleague}"
        return {
            "key": letter.key,
            "kind": "mail",
            "to": letter.colleague,
            "address": letter.colleague,
            "claim_id": letter.claim_id,
            "subject": letter.subject,
            "text": letter.text,
            "links": [{"label": "Decide", "url": decide, "about": about}] if decide else [],
        }


class PhotoService:
    """The photo assessment at an address."""

    def __init__(self, url: str) -> None:
        self._http = _client(url)

    async def look_at(self, claim: Claim) -> tuple[Photo, ...]:
        found = await self._assess(claim, claim.photos)
        if found is None:  # some were erased: the others are looked at one by one
            each = [
                await self._assess(claim, (digest,)) or (Photo(digest, ERASED),) for digest in claim.photos
            ]
            found = tuple(photo for photos in each for photo in photos)
        return found

    async def _assess(self, claim: Claim, photos: tuple[str, ...]) -> tuple[Photo, ...] | None:
        """What these photos show; None if one is not in the folder any more."""
        body = {"claim_id": claim.claim_id, "happened": claim.happened.isoformat(), "photos": list(photos)}
        answer = await self._http.post("/assessments", json=body, timeout=6 * PATIENCE)
        if answer.status_code == GONE:
            return None
        answer.raise_for_status()
        return tuple(map(_photo, _document(answer)["photos"]))

    async def close(self) -> None:
        await self._http.aclose()


def _client(url: str) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(base_url=url, timeout=PATIENCE, trust_env=False)


def _document(answer: httpx2.Response) -> Document:
    """The JSON object in an answer. Raises ValueError if there is none."""
    found = answer.json()
    if not isinstance(found, dict):
        raise ValueError(f"{answer.url} returned no JSON object")
    return Document(found)


def _payment(document: dict[str, Any]) -> Payment:
    return Payment(document["payment_id"], document["claim_id"], document["amount"], document["key"])


def _photo(document: dict[str, Any]) -> Photo:
    """A photo's assessment. One of another claim is for an adjuster to see, so it counts as usable."""
    damage, seen = document["damage"], document["seen_before"] or {}
    return Photo(
        digest=document["digest"],
        problem="" if seen and "already" in document["problem"] else document["problem"],
        seen_in=seen.get("claim_id", ""),
        seen_photo=seen.get("digest", ""),
        how=seen.get("how", ""),
        damage=damage["share"],
        confidence=damage["confidence"],
        where=damage.get("where", ""),
        box=tuple(damage["box"] or ()),
        taken=document["taken"] or "",
    )
