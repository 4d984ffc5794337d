from __future__ import annotations

import pytest

from node.dataplane.haproxy.config import render
from node.dataplane.haproxy.program import complaint
from node.dataplane.haproxy.runtime import _name
from secbeat.settings import NodeSettings


def text(**settings) -> str:
    return render(NodeSettings(**settings), 8443, lua=True, hard_stop_seconds=60).text


def test_the_same_settings_make_the_same_text_so_that_nothing_is_reloaded_for_nothing():
    assert text() == text()


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"listen_addr": "[::1]:8443"}, "bind [::1]:8443 ssl crt node.pem"),
        ({"backend": "http://[::1]:9000"}, "server origin [::1]:9000 check"),
        ({"backend": "https://app.example"}, "ssl verify required ca-file @system-ca sni str(app.example)"),
        ({"backend": "http://app.example/base/"}, "http-request set-uri /base%[pathq]\n"),
        ({"header_timeout_seconds": 0.4}, "timeout http-request 400ms"),
        ({"max_connections": 7}, "{ fe_conn gt 7 }"),
        ({"trusted_proxies": ["10.0.0.0/8"]}, "-f trusted.lst"),
    ],
)
def test_a_setting_stands_where_haproxy_reads_it(settings, line):
    assert line in text(**settings)


def test_a_proxy_that_nobody_trusts_is_not_asked_who_the_client_is():
    assert "trusted.lst" not in text()


def test_without_lua_no_lua_is_loaded():
    assert "lua" not in render(NodeSettings(), 8443, lua=False, hard_stop_seconds=60).text


def test_the_first_alert_is_the_sentence_that_a_person_reads():
    assert complaint("[NOTICE] (1) : x\n[ALERT] (1) : bad\n[ALERT] (1) : fatal\n") == "[ALERT] (1) : bad"


def test_a_key_that_is_sent_never_stands_in_an_error():
    assert _name("@1 set ssl cert node.pem <<\n-----BEGIN PRIVATE KEY-----") == "@1 set ssl cert"
