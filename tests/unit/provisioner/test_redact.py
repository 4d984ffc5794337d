from __future__ import annotations

import base64
import json
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioner.redact import REPLACEMENT, Redactor, secrets_in

SECRET = 'pa$$ word/+=é"quoted'


@pytest.mark.parametrize(
    "form",
    [
        SECRET,
        json.dumps(SECRET)[1:-1],
        quote(SECRET),
        quote(SECRET, safe=""),
        quote_plus(SECRET),
        base64.b64encode(SECRET.encode()).decode(),
        base64.urlsafe_b64encode(SECRET.encode()).decode(),
        SECRET.encode().hex(),
    ],
)
def test_a_secret_goes_in_every_form_in_which_it_travels(form):
    text = Redactor([SECRET]).text(f"before {form} after")
    assert text.startswith("before ")
    assert text.endswith(" after")
    assert REPLACEMENT in text
    assert form.rstrip("=") not in text


@given(
    st.binary(max_size=7), st.binary(max_size=7), st.text("abcdefghijkLMNOP0123456789+/_-", min_size=16, max_size=48)
)
def test_base64_of_a_text_with_the_secret_in_it_does_not_show_the_secret(before, after, secret):
    whole = before + secret.encode() + after
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        shown = Redactor([secret]).text(encode(whole).decode())
        assert REPLACEMENT in shown
        # What is left around the cut decodes to at most a few characters of the secret's ends.
        assert len(shown.replace(REPLACEMENT, "")) < (len(before) + len(after)) * 4 / 3 + 12


def test_the_webhook_secret_is_known_with_and_without_its_prefix():
    secret = "whsec_" + base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()
    redactor = Redactor([secret])
    assert redactor.text(secret) == REPLACEMENT
    assert secret.removeprefix("whsec_").rstrip("=") not in redactor.text(f"key={secret.removeprefix('whsec_')}")


def test_each_line_of_a_key_file_is_a_secret():
    key = "-----BEGIN KEY-----\nAAAABBBBCCCCDDDD\nEEEEFFFFGGGGHHHH\n-----END KEY-----"
    assert Redactor([key]).text("only this: EEEEFFFFGGGGHHHH") == f"only this: {REPLACEMENT}"


def test_short_values_are_left_alone():
    assert Redactor(["yes", "1234567"]).text("yes 1234567") == "yes 1234567"


def test_trees_are_cleaned_to_the_leaves_and_keys():
    redactor = Redactor(["super-secret"])
    assert redactor.tree({"a": ["super-secret", 1, None, {"super-secret": "x super-secret y"}]}) == {
        "a": [REPLACEMENT, 1, None, {REPLACEMENT: f"x {REPLACEMENT} y"}]
    }


def test_an_extended_redactor_leaves_the_first_as_it_was():
    first = Redactor(["first-secret"])
    second = first.extended(["second-secret"])
    assert second.text("first-secret second-secret") == f"{REPLACEMENT} {REPLACEMENT}"
    assert first.text("second-secret") == "second-secret"


def test_variables_named_like_secrets_are_secrets_with_everything_below_them():
    found = secrets_in(
        {"image": "debian", "db_password": "one", "tokens": ["two"], "cloud": {"api_key": "three", "region": "eu"},
         "credentials": {"user": "four"}, "retries": 3}
    )  # fmt: skip
    assert sorted(found) == ["four", "one", "three", "two"]


def test_a_text_of_two_megabytes_is_cleaned_in_well_under_a_second():
    redactor = Redactor([f"secret-number-{number}" for number in range(20)])
    assert REPLACEMENT in redactor.text("x" * 2_000_000 + "secret-number-7")
