from __future__ import annotations

import base64
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from secbeat import signing
from secbeat.errors import AuthError

SECRET, OTHER = signing.new_secret(), signing.new_secret()
NOW = 1_780_000_000
BODY = b'{"reason": "HIGH_FLEET_CPU_LOAD"}'


def signed(secret: str = SECRET, body: bytes = BODY, msg_id: str = "01M897M22X6M738702J286XS6S", at: int = NOW):
    return signing.headers(secret, msg_id=msg_id, timestamp=at, body=body)


def verify(headers, body: bytes = BODY, secrets=(SECRET,), now: float = NOW, tolerance: float = 300) -> str:
    return signing.verify(secrets, headers, body, now=now, tolerance=tolerance)


@given(st.text(st.characters(codec="utf-8", exclude_characters=".")).filter(bool), st.text())
def test_a_signature_is_the_reference_implementations(msg_id, text):
    body = text.encode()
    reference = Webhook(SECRET).sign(msg_id, datetime.fromtimestamp(NOW, UTC), text)
    assert signing.sign(SECRET, msg_id=msg_id, timestamp=NOW, body=body) == reference


def test_the_reference_implementation_verifies_ours_and_we_verify_its():
    now = int(datetime.now(UTC).timestamp())
    ours = signed(at=now)
    assert Webhook(SECRET).verify(BODY, ours) == {"reason": "HIGH_FLEET_CPU_LOAD"}
    with pytest.raises(WebhookVerificationError):
        Webhook(OTHER).verify(BODY, ours)
    theirs = Webhook(SECRET).sign("msg_1", datetime.fromtimestamp(NOW, UTC), BODY.decode())
    assert verify({"webhook-id": "msg_1", "webhook-timestamp": str(NOW), "webhook-signature": theirs}) == "msg_1"


def test_a_signed_request_gives_its_id():
    assert verify(signed()) == "01M897M22X6M738702J286XS6S"


def test_header_names_are_taken_in_any_case():
    assert verify({name.upper(): value for name, value in signed().items()})


@pytest.mark.parametrize("missing", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_each_missing_header_is_missing(missing):
    headers = signed()
    del headers[missing]
    with pytest.raises(AuthError, match="SIGNATURE_MISSING") as refusal:
        verify(headers)
    assert missing in refusal.value.why


@pytest.mark.parametrize(
    ("change", "body"),
    [
        ({}, BODY + b" "),
        ({"webhook-id": "another"}, BODY),
        ({"webhook-timestamp": str(NOW + 1)}, BODY),
        ({"webhook-signature": "v1,"}, BODY),
        ({"webhook-signature": ""}, BODY),
        ({"webhook-signature": "v1," + base64.b64encode(b"0" * 32).decode()}, BODY),
        ({"webhook-id": ""}, BODY),
        ({"webhook-id": "a.b"}, BODY),
        ({"webhook-id": "x" * 257}, BODY),
        ({"webhook-id": "\udcff"}, BODY),
        ({"webhook-signature": "v1,\udcff"}, BODY),
        ({"webhook-timestamp": "soon"}, BODY),
        ({"webhook-timestamp": "-1"}, BODY),
        ({"webhook-timestamp": "٣"}, BODY),
        ({"webhook-timestamp": "9" * 400}, BODY),
    ],
)
def test_a_changed_request_is_refused(change, body):
    with pytest.raises(AuthError, match=r"SIGNATURE_(INVALID|EXPIRED)"):
        verify({**signed(), **change}, body)


def test_only_version_1_counts():
    headers = signed()
    headers["webhook-signature"] = headers["webhook-signature"].replace("v1,", "v1a,")
    with pytest.raises(AuthError, match="SIGNATURE_INVALID"):
        verify(headers)


def test_two_secrets_are_valid_during_a_rotation_and_no_third():
    assert verify(signed(OTHER), secrets=(SECRET, OTHER))
    assert verify(signed(SECRET), secrets=(SECRET, OTHER))
    with pytest.raises(AuthError, match="SIGNATURE_INVALID"):
        verify(signed(signing.new_secret()), secrets=(SECRET, OTHER))
    with pytest.raises(AuthError, match="SIGNATURE_INVALID"):
        verify(signed(), secrets=())


def test_one_of_several_signatures_is_enough():
    headers = signed()
    headers["webhook-signature"] = f"v1,{'A' * 43}= {headers['webhook-signature']}"
    assert verify(headers)


@pytest.mark.parametrize("skew", [-300, 300])
def test_the_tolerance_is_included_both_ways(skew):
    assert verify(signed(), now=NOW + skew)


@pytest.mark.parametrize("skew", [-301, 301])
def test_beyond_the_tolerance_it_is_expired(skew):
    with pytest.raises(AuthError, match="SIGNATURE_EXPIRED"):
        verify(signed(), now=NOW + skew)


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "hunter2hunter2",
        "whsec_",
        "whsec_abc",
        "whsec_" + base64.b64encode(b"x" * 23).decode(),
        "whsec_!!!!",
        "whsec_" + base64.b64encode(b"x" * 65).decode(),
    ],
)
def test_what_cannot_be_a_secret_is_refused_without_being_quoted(secret):
    with pytest.raises(ValueError, match="webhook secret") as refusal:
        signing.check_secret(secret)
    assert not secret.removeprefix("whsec_") or secret.removeprefix("whsec_") not in str(refusal.value)


@pytest.mark.parametrize("size", [24, 64])
def test_secrets_of_the_standards_sizes_are_taken(size):
    secret = "whsec_" + base64.b64encode(b"x" * size).decode()
    assert signing.check_secret(secret) == secret


def test_a_request_that_claims_to_be_signed_is_never_taken_for_an_unsigned_one():
    assert signing.is_signed({"Webhook-Signature": ""})
    assert signing.is_signed({"WEBHOOK-ID": "x"})
    assert not signing.is_signed({"Content-Type": "application/json"})
