#!/usr/bin/env python3
"""A receiver of Air-Executor's command webhook: starts an `air-runner` for each event that is signed with the secret.

It shows what a receiver has to do, with nothing but the standard library; what starts a function, a container or a
machine stands where this one starts a process. Credentials of NATS (`NATS_CREDS` and the like) are in its environment.
"""

import argparse
import base64
import hashlib
import hmac
import json
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

BODY_MAX = 1 << 20
CLOCKS_MAY_DIFFER = 300  # seconds; an older request is somebody's copy
IDS_KEPT = 10_000


class Receiver(ThreadingHTTPServer):
    """The runners, and the ids of the events that started them."""

    daemon_threads = True

    def __init__(self, address, secret, program, most):
        super().__init__(address, Handler)
        self.secret, self.program, self.most = secret, program, most
        self.lock = threading.Lock()
        self.ids = {}  # in the order in which they came
        self.runners = {}

    def start(self, event):
        """Starts a runner; the status that answers the event."""
        data = event["data"]
        name, runner_id = event["id"], data["runner"]
        # Whatever an event says, the program is ours, and so are the credentials.
        known = {key: str(value) for key, value in data["env"].items() if key.startswith("AIR_") or key == "NATS_URL"}
        if data.get("image") or data.get("resources"):
            return 422, "this receiver has neither images nor resources"
        with self.lock:
            if name in self.ids:
                return 409, "it was started before"
            if len(self.runners) >= self.most:
                return 503, "all places are taken"
            try:
                runner = subprocess.Popen([self.program], env={**os.environ, **known}, stdin=subprocess.DEVNULL)
            except OSError as error:
                return 503, f"{self.program}: {error}"
            self.ids[name] = None
            for old in list(self.ids)[:-IDS_KEPT]:
                del self.ids[old]
            self.runners[runner_id] = runner
        threading.Thread(target=self.wait, args=(runner_id, runner)).start()
        return 202, "started"

    def wait(self, name, runner):
        """Waits for a runner, and kills what one that was killed left of its task."""
        runner.wait()
        mark = f"AIR_RUNNER={name}".encode()
        for environ in Path("/proc").glob("[0-9]*/environ"):
            try:
                if mark in environ.read_bytes().split(b"\0"):
                    os.kill(int(environ.parent.name), signal.SIGKILL)
            except OSError:
                pass  # It has ended, or is another user's.
        with self.lock:
            del self.runners[name]

    def stop(self, event):
        """Has a runner end its task and itself; the status that answers the event."""
        with self.lock:
            runner = self.runners.get(event["data"]["runner"])
            if runner is None:
                return 404, "there is no such runner"
            runner.terminate()
        return 202, "told"


class Handler(BaseHTTPRequestHandler):
    """One request."""

    def do_POST(self):
        status, text = self.answer()
        body = json.dumps({"message": text}).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def answer(self):
        length = int(self.headers.get("content-length") or 0)
        if not 0 < length <= BODY_MAX:
            return 413, f"a body has 1 to {BODY_MAX} bytes"
        body = self.rfile.read(length)
        if not self.is_signed(body):
            return 401, "the signature is not that of the secret, or is old"
        try:
            event = json.loads(body)
            do = {"air.runner.start": self.server.start, "air.runner.stop": self.server.stop}.get(event["type"])
            return do(event) if do else (422, f"unknown type {event['type']}")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            return 400, f"no event of Air-Executor: {error!r}"

    def is_signed(self, body):
        """Whether the request is signed as Standard Webhooks are."""
        name, at = self.headers.get("webhook-id", ""), self.headers.get("webhook-timestamp", "")
        if not at.isdecimal() or abs(time.time() - int(at)) > CLOCKS_MAY_DIFFER:
            return False
        tag = hmac.new(self.server.secret, f"{name}.{at}.".encode() + body, hashlib.sha256).digest()
        expected = f"v1,{base64.b64encode(tag).decode()}"
        # There may be several, while a secret is changed.
        given = self.headers.get("webhook-signature", "").split()
        return any(hmac.compare_digest(one.encode(), expected.encode()) for one in given)

    def log_message(self, format, *args):
        print(f"{self.address_string()} {format % args}", file=sys.stderr)


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--secret-file", required=True, type=Path, help="file with the secret: whsec_ and base64")
    options.add_argument("--host", default="127.0.0.1")
    options.add_argument("--port", default=8080, type=int, help="0 for any that is free")
    options.add_argument("--runner", default="air-runner", help="the program air-runner [default: on the PATH]")
    options.add_argument("--max-runners", default=8, type=int)
    options = options.parse_args()
    text = options.secret_file.read_text().strip()
    if not text.startswith("whsec_"):
        raise SystemExit(f"{options.secret_file}: a secret begins with whsec_")
    secret = base64.b64decode(text.removeprefix("whsec_"), validate=True)
    with Receiver((options.host, options.port), secret, options.runner, options.max_runners) as server:
        print(f"listening on http://{options.host}:{server.server_address[1]}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
