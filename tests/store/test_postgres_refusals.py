"""What a server says when it lets nobody in: whether another attempt can go better."""

import pytest

pytest.importorskip("psycopg")

from perdure.store.postgres.errors import for_good


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        ('connection failed: FATAL:  password authentication failed for user "me"', "%40"),
        ("connection failed: fe_sendauth: no password supplied", "%40"),
        ('connection failed: FATAL:  role "me" does not exist', "user and password"),
        ('connection failed: FATAL:  database "claims" does not exist', "createdb claims"),
    ],
)
def test_what_stays_wrong_is_said_with_what_to_do(said: str, hint: str) -> None:
    final = for_good(OSError(said), "db.example.org", "claims")
    assert final is not None
    assert hint in str(final)
    assert "db.example.org" in str(final)


@pytest.mark.parametrize(
    "said",
    ["FATAL:  the database system is starting up", "Connection refused", "timeout expired"],
)
def test_what_may_pass_is_waited_for(said: str) -> None:
    assert for_good(OSError(said), "db.example.org", "claims") is None
