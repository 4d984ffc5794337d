"""The receivers that the documentation prints: signatures checked, nothing done twice, a report that is taken."""

from __future__ import annotations

import json
import re
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import get_args

import pytest

from orchestrator.notifying.messages import Notification, message_id
from secbeat import ids, signing
from secbeat.settings import NotificationKind
from secbeat.wire.jobs import JobRecord
from secbeat.wire.webhook import WebhookAnswer, WebhookBody
from tests.acceptance.support import Place, free_port, until
from tests.docs.pages import ROOT, blocks

PAGE, NOTIFICATIONS = (ROOT / "docs" / "howto" / name for name in ("receiver.md", "notifications.md"))


@pytest.fixture
def reports():
    """An orchestrator's side of the callback: (headers, body) of each report."""
    heard = []

    class Callback(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            heard.append((dict(self.headers), body))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Callback)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    heard_at = f"http://127.0.0.1:{server.server_port}"
    yield heard_at, heard
    server.shutdown()
    thread.join()
    server.server_close()


def body_of(page_json, callback_url):
    """The page's own example, for this moment."""
    body = json.loads(page_json)
    body["operation"] |= {"op_id": ids.new_op_id(), "callback_url": callback_url}
    WebhookBody.model_validate(body)
    return json.dumps(body).encode()


def post(url, body, headers):
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def test_the_receiver_of_the_page_checks_remembers_and_reports(place, reports):
    (program,) = (block for block in blocks(PAGE) if block.language == "python")
    (example,) = (block for block in blocks(PAGE) if block.language == "json")
    callback_url, heard = reports
    secret, port = signing.new_secret(), free_port()
    place.write("receiver.py", program.text)
    place.write("webhook.secret", secret + "\n")
    receiver = place.start(f"exec python3 receiver.py webhook.secret seen {port}")
    url = f"http://127.0.0.1:{port}/provision"
    body = body_of(example.text, callback_url)
    operation = json.loads(body)["operation"]

    until(lambda: refuses(url), 20, "the receiver answers", diagnosis=receiver.said)
    now = int(time.time())
    assert post(url, body, {"Content-Type": "application/json"})[0] == 401, "unsigned"
    signed = signing.headers(secret, msg_id=operation["op_id"], timestamp=now, body=body)
    assert post(url, body.replace(b"HIGH", b"HUGE"), signed)[0] == 401, "changed on its way"
    old = signing.headers(secret, msg_id=operation["op_id"], timestamp=now - 1000, body=body)
    assert post(url, body, old)[0] == 401, "replayed"
    assert heard == []

    status, answer = post(url, body, signed)
    assert (status, WebhookAnswer.model_validate_json(answer).status) == (202, "accepted")
    status, answer = post(url, body, signed)
    assert (status, WebhookAnswer.model_validate_json(answer).status) == (200, "known")

    until(lambda: heard, 10, "a report", diagnosis=receiver.said)
    ((headers, report),) = heard
    signing.verify([secret], headers, report, now=time.time(), tolerance=300)
    record = JobRecord.model_validate_json(report)
    assert (record.op_id, record.state, record.machine.address) == (operation["op_id"], "succeeded", "127.0.0.1")


def test_the_receiver_of_notifications_prints_each_matter_once(place):
    (program,) = (block for block in blocks(NOTIFICATIONS) if block.language == "python")
    (example,) = (block for block in blocks(NOTIFICATIONS) if block.language == "json")
    secret, port = signing.new_secret(), free_port()
    place.write("notified.py", program.text)
    place.write("notifications.secret", secret + "\n")
    receiver = place.start(f"exec python3 notified.py notifications.secret {port}")
    url = f"http://127.0.0.1:{port}/secbeat"
    until(lambda: refuses(url), 20, "the receiver answers", diagnosis=receiver.said)

    notification = Notification.model_validate_json(example.text)
    assert notification.type == f"{notification.data.kind}.{notification.data.phase}"
    body = notification.encode()
    signed = signing.headers(secret, msg_id=message_id(notification), timestamp=int(time.time()), body=body)
    assert post(url, body.replace(b"web", b"edge"), signed)[0] == 401, "changed on its way"
    assert [post(url, body, signed)[0] for _ in range(2)] == [204, 204]
    assert receiver.stdout == f"at_limit began: web: {notification.data.sentence}\n"


def test_the_page_of_notifications_names_every_kind():
    named = re.findall(r"^\| `(\w+)` \|", NOTIFICATIONS.read_text(), re.MULTILINE)
    assert sorted(named) == sorted(get_args(NotificationKind))


def refuses(url):
    """Whether something listens that wants a signature."""
    try:
        return post(url, b"", {})[0] == 401
    except OSError:
        return False


@pytest.fixture
def place(tmp_path):
    made = Place(tmp_path)
    yield made
    made.close()
