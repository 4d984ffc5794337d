from __future__ import annotations

import json
import os
import stat

import pytest

from secbeat import auth
from secbeat.auth import FailureLimiter, Principal, TokenBook
from secbeat.errors import ConfigError
from secbeat.testing import FakeClock


@pytest.fixture
def path(tmp_path):
    return tmp_path / "secrets" / "tokens.json"


class TestTokens:
    def test_an_issued_token_is_known_by_name_and_scope_and_is_not_in_the_file(self, path):
        token = TokenBook.issue(path, name="ops", scope="operate")
        assert TokenBook.load(path).check(token) == Principal("ops", "operate")
        assert token not in path.read_text()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

    def test_issuing_keeps_the_tokens_that_exist(self, path):
        tokens = [TokenBook.issue(path, name=f"n{n}", scope="read") for n in range(3)]
        book = TokenBook.load(path)
        assert [book.check(token).name for token in tokens] == ["n0", "n1", "n2"]

    @pytest.mark.parametrize("token", ["", "wrong", "\udcff", "ä"])
    def test_a_wrong_token_is_nobody_whatever_bytes_it_has(self, path, token):
        TokenBook.issue(path, name="ops", scope="read")
        assert TokenBook.load(path).check(token) is None

    def test_the_hash_in_the_file_is_no_token(self, path):
        TokenBook.issue(path, name="ops", scope="admin")
        book = TokenBook.load(path)
        assert book.check(book.tokens[0].sha256) is None

    def test_an_absent_file_knows_nobody(self, path):
        assert TokenBook.load(path).check("x") is None

    async def test_a_token_ends_at_its_end(self, path):
        clock = FakeClock()
        token = TokenBook.issue(path, name="old", scope="read")
        rows = json.loads(path.read_text())
        rows["tokens"][0]["not_after"] = clock.now().timestamp() + 60
        path.write_text(json.dumps(rows))
        book = TokenBook.load(path, clock=clock)
        assert book.check(token) is not None
        await clock.advance(60)
        assert book.check(token) is None

    @pytest.mark.parametrize(
        "content",
        [
            "",
            "[]",
            "{}",
            '{"tokens": 1}',
            '{"tokens": [1]}',
            '{"tokens": [{"name": "a", "scope": "root", "sha256": "%s"}]}' % ("0" * 64),
            '{"tokens": [{"name": "a", "scope": "read", "sha256": "abc"}]}',
            '{"tokens": [{"name": "a", "scope": "read", "sha256": 7}]}',
            '{"tokens": [{"name": "a", "scope": "read", "sha256": "%s", "not_after": "soon"}]}' % ("0" * 64),
            '{"tokens": [{"name": "a", "scope": "read", "sha256": "%s", "extra": 1}]}' % ("0" * 64),
        ],
    )
    def test_a_malformed_file_is_refused_when_it_is_read(self, path, content):
        path.parent.mkdir()
        path.write_text(content)
        with pytest.raises(ConfigError, match="SECRET_UNREADABLE"):
            TokenBook.load(path)

    def test_scopes_include_what_they_say_and_no_more(self):
        grants = {
            (scope, asked)
            for scope in ("read", "operate", "admin", "service")
            for asked in ("read", "operate", "admin", "service")
            if Principal("x", scope).may(asked)
        }
        assert grants == {
            ("read", "read"),
            ("operate", "read"),
            ("operate", "operate"),
            *(("admin", asked) for asked in ("read", "operate", "admin", "service")),
            ("service", "service"),
        }

    def test_derived_tokens_depend_on_the_key_and_on_every_part(self):
        one = auth.derive_token(b"k" * 32, "management", "a")
        assert one == auth.derive_token(b"k" * 32, "management", "a")
        others = {
            auth.derive_token(b"K" * 32, "management", "a"),
            auth.derive_token(b"k" * 32, "management", "b"),
            auth.derive_token(b"k" * 32, "join", "a"),
            auth.derive_token(b"k" * 32, "managementa"),
            auth.derive_token(b"k" * 32, "management", "a", ""),
        }
        assert len(others | {one}) == 6

    @pytest.mark.parametrize(
        ("key", "info"), [(b"k" * 32, b"secbeat\0management"), (b"", b""), (b"long" * 99, b"i" * 99)]
    )
    def test_derivation_is_the_hkdf_of_the_standard(self, key, info):
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF

        assert auth.hkdf(key, info) == HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(key)

    def test_a_token_matches_its_hash_only(self):
        token = auth.new_token()
        assert auth.token_matches(token, auth.hash_token(token))
        assert not auth.token_matches(token + "x", auth.hash_token(token))


class TestFailureLimiter:
    def test_other_addresses_are_not_affected(self):
        limiter = FailureLimiter(limit=1, clock=FakeClock())
        limiter.failed("192.0.2.1")
        assert limiter.blocked("192.0.2.1")
        assert not limiter.blocked("192.0.2.2")

    def test_an_ipv6_address_counts_with_its_network_and_a_mapped_one_by_itself(self):
        limiter = FailureLimiter(limit=1, clock=FakeClock())
        limiter.failed("2001:db8::1")
        assert limiter.blocked("2001:db8::ffff:1")
        assert not limiter.blocked("2001:db8:0:1::1")
        limiter.failed("::ffff:192.0.2.1")
        assert limiter.blocked("192.0.2.1")
        assert not limiter.blocked("::ffff:192.0.2.2")

    def test_memory_is_bounded_whatever_comes(self):
        limiter = FailureLimiter(clock=FakeClock())
        for number in range(30_000):
            limiter.failed(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
        assert limiter.remembered == 10_000

    def test_a_success_forgets_the_failures(self):
        limiter = FailureLimiter(limit=1, clock=FakeClock())
        limiter.failed("192.0.2.1")
        limiter.succeeded("192.0.2.1")
        assert not limiter.blocked("192.0.2.1")

    async def test_it_blocks_at_the_limit_until_the_window_has_passed(self):
        clock = FakeClock()
        limiter = FailureLimiter(limit=3, window_seconds=60, clock=clock)
        for _ in range(2):
            limiter.failed("a")
        assert not limiter.blocked("a")
        limiter.failed("a")
        assert limiter.blocked("a")
        assert not limiter.blocked("b")
        await clock.advance(59.9)
        assert limiter.blocked("a")
        await clock.advance(0.1)
        assert not limiter.blocked("a")
        limiter.failed("a")
        assert not limiter.blocked("a"), "the count begins anew"

    async def test_slow_failures_never_block(self):
        clock = FakeClock()
        limiter = FailureLimiter(limit=3, window_seconds=60, clock=clock)
        for _ in range(10):
            limiter.failed("a")
            await clock.advance(31)
            assert not limiter.blocked("a")

    def test_it_forgets_the_oldest_address_and_keeps_its_memory_bounded(self):
        limiter = FailureLimiter(limit=1, clock=FakeClock())
        for number in range(10_001):
            limiter.failed(str(number))
        assert not limiter.blocked("0")
        assert limiter.blocked("1")
        assert len(limiter._failures) == 10_000


class TestSecretFiles:
    def test_what_was_written_is_read_by_its_user_only(self, tmp_path):
        path = tmp_path / "new" / "admin.token"
        auth.write_secret(path, "value\n")
        assert auth.read_secret(path) == "value"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700

    def test_writing_over_a_file_that_others_could_read_closes_it(self, tmp_path):
        path = tmp_path / "s"
        path.write_text("old")
        path.chmod(0o644)
        auth.write_secret(path, "new")
        assert auth.read_secret(path) == "new"

    def test_writing_leaves_no_other_file_behind_even_when_it_fails(self, tmp_path, monkeypatch):
        monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(ConfigError, match="STATE_NOT_WRITABLE") as refusal:
            auth.write_secret(tmp_path / "s", "value")
        assert "No space left" in refusal.value.why
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601, 0o644])
    def test_a_file_that_others_may_touch_is_refused_with_the_remedy(self, tmp_path, mode):
        path = tmp_path / "s"
        path.write_text("value")
        path.chmod(mode)
        with pytest.raises(ConfigError, match="SECRET_UNREADABLE") as refusal:
            auth.read_secret(path)
        assert refusal.value.fix == f"chmod 600 {path}"
        assert "value" not in str(refusal.value.lines())

    @pytest.mark.parametrize("mode", [0o600, 0o400])
    def test_its_own_users_modes_are_taken(self, tmp_path, mode):
        path = tmp_path / "s"
        path.write_text("value")
        path.chmod(mode)
        assert auth.read_secret(path) == "value"

    def test_a_missing_file_a_directory_and_no_text_are_refused(self, tmp_path):
        (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
        (tmp_path / "binary").chmod(0o600)
        for name in ("absent", ".", "binary"):
            with pytest.raises(ConfigError, match="SECRET_UNREADABLE"):
                auth.read_secret(tmp_path / name)

    @pytest.mark.parametrize("text", ["", "  \n", "changeme", "$(openssl rand -hex 32)", "${TOKEN}"])
    def test_a_placeholder_is_no_secret(self, tmp_path, text):
        auth.write_secret(tmp_path / "s", text)
        with pytest.raises(ConfigError, match="SECRET_PLACEHOLDER"):
            auth.read_secret(tmp_path / "s")
