#!/usr/bin/env python3
"""A registry in memory that can be made to fail, for tests.

  registry.py [--auth none|basic|bearer|harbor] [--user U --password P] [--token-life S]
              [--rules FILE] [--log FILE] [--tls-cert F --tls-key F [--client-ca F]]

Prints "PORT PORT2" on one line and serves until its stdin closes (or it is killed).  PORT2 is the same
store under another port: the object storage that redirects lead to; it refuses Authorization with 400.

Control (no login needed), on either port:
  PUT  /_fake/rules      a JSON list of rules, replaces the old ones
  GET  /_fake/log        the requests so far, JSON lines
  GET  /_fake/uploads    the open uploads: {id: bytes}
  GET  /_fake/blobs      {digest: size};  GET /_fake/manifests  {"repo:tag": digest}
  POST /_fake/expire     every token given so far is refused from now on
  POST /_fake/auth       {"auth": "...", "token_life": N}: changes the mode
  POST /_fake/reset      forgets rules, log, store, tokens

A rule: {"method": "GET", "path": REGEX, "after": N, "times": N, ...what it does}; the regex is searched in
path?query, the first `after` requests that match pass, then `times` (default: all) are hit.  Several rules
may hit one request; what they do is merged.
  status N, headers {..}, body "..."   answers that at once, before the request's body is read
  read true                            with status: reads the body first
  delay S        before the answer              rate N       bytes a second, of the body sent
  flip true      the body's last byte           truncate N   only N bytes, then closes (Content-Length stays)
  reset N        N bytes, then RST              wrong_size N Content-Length + N, then closes
  html true      a web page with 200            no_digest / no_length true   that header is left out
  ignore_range true   200 with everything       keep N       PATCH: keeps N bytes of the body, says so in Range
  no_range_header true  PATCH: no Range         redirect other|same|relative|chain|downgrade|URL
  location other_port|relative|query|https      of upload sessions
  chunk_min N    OCI-Chunk-Min-Length           max_body N   413 for a longer body (known or while reading it)
  late S         PUT: applied after S seconds, whether the client waits or not
  close true     Connection: close (curl repeats a request itself when a reused connection breaks at once)
  drop_answer true    does the thing, then closes without an answer
  mount N        201, 202 or 401 for mounts
"""
import argparse
import base64
import hashlib
import json
import os
import re
import socket
import socketserver
import ssl
import struct
import sys
import threading
import time
import urllib.parse
import uuid
from http.server import BaseHTTPRequestHandler, HTTPServer


class State:
    def __init__(self, args):
        self.args = args
        self.lock = threading.RLock()
        self.auth = args.auth
        self.token_life = args.token_life
        self.answering = set()  # requests whose answer has begun and that are not over
        self.clear()

    def clear(self):
        self.blobs = {}  # digest -> bytes
        self.where = {}  # repo -> set of digests
        self.manifests = {}  # (repo, digest) -> (type, bytes)
        self.tags = {}  # (repo, tag) -> digest
        self.uploads = {}  # id -> bytearray
        self.tokens = {}  # token -> (scopes, end)
        self.rules = []
        self.log = []
        self.ports = getattr(self, "ports", [0, 0])


def b64(s):
    return base64.b64encode(s.encode()).decode()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "fake"
    state = None

    # ---- plumbing
    def log_message(self, *a):
        pass

    def handle_expect_100(self):
        self.expects = True  # answered when the body is read
        return True

    def setup(self):
        super().setup()
        self.expects = False
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def handle_one_request(self):
        self.expects = False
        self.read_bytes = 0
        self.sent_bytes = 0
        self.answered = 0
        try:
            super().handle_one_request()
        except (BrokenPipeError, ConnectionResetError, ssl.SSLError, socket.timeout):
            self.close_connection = True

    def pieces(self):
        """The request's body, decoded, in pieces."""
        if self.expects:
            self.expects = False
            self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.wfile.flush()
        self.body_read = True
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            while True:
                n = int(self.rfile.readline(100).split(b";")[0], 16)
                if n == 0:
                    while self.rfile.readline(1000).strip():
                        pass
                    return
                while n:
                    p = self.rfile.read(min(n, 65536))
                    if not p:
                        raise ConnectionResetError
                    n -= len(p)
                    self.read_bytes += len(p)
                    yield p
                self.rfile.readline(10)
        n = int(self.headers.get("Content-Length") or 0)
        while n:
            p = self.rfile.read(min(n, 65536))
            if not p:
                raise ConnectionResetError
            n -= len(p)
            self.read_bytes += len(p)
            yield p

    def body(self):
        return b"".join(self.pieces())

    def has_body(self):
        return "Transfer-Encoding" in self.headers or int(self.headers.get("Content-Length") or 0) > 0

    def rst(self):
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()
        raise ConnectionResetError

    def answer(self, status, headers=None, body=b"", head=False):
        do = self.do
        headers = dict(headers or {})
        if not self.path.startswith("/_fake/"):
            self.state.answering.add(self)
        if isinstance(body, str):
            body = body.encode()
        if do.get("drop_answer"):
            self.close_connection = True
            self.answered = -1
            return
        if self.has_body() and not self.body_read:
            self.close_connection = True  # an early answer: the rest of the body is not looked at
            headers["Connection"] = "close"
        if do.get("close"):
            self.close_connection = True
            headers["Connection"] = "close"
        if do.get("html") and status == 200:
            body = b"<!DOCTYPE html><html><head><title>Log in</title></head><body>proxy</body></html>"
            headers = {"Content-Type": "text/html"}
        if do.get("no_digest"):
            headers.pop("Docker-Content-Digest", None)
        if do.get("flip") and body:
            body = body[:-1] + bytes([body[-1] ^ 1])
        length = headers.pop("Content-Length", len(body)) + do.get("wrong_size", 0)
        with self.state.lock:  # before the client can know
            self.line.update({"status": status, "in": self.read_bytes})
        self.send_response(status)
        for k, v in headers.items():
            for one in v if isinstance(v, list) else [v]:
                self.send_header(k, str(one))
        if "X-Request-Id" in self.headers:
            self.send_header("X-Request-Id", self.headers["X-Request-Id"])
        if not do.get("no_length"):
            self.send_header("Content-Length", str(length))
        elif self.command != "HEAD":
            self.close_connection = True
            self.send_header("Connection", "close")
        self.end_headers()
        self.answered = status
        if self.command == "HEAD" or head:
            return
        self.send_body(body)
        if do.get("wrong_size"):
            self.close_connection = True

    def send_body(self, body):
        do = self.do
        cut = do.get("truncate", do.get("reset"))
        if cut is not None:
            body = body[:cut]
        rate = do.get("rate")
        start = time.monotonic()
        step = 65536 if not rate else max(1, min(65536, rate // 20))
        for at in range(0, len(body), step):
            self.wfile.write(body[at:at + step])
            self.sent_bytes = min(at + step, len(body))
            if rate:
                self.wfile.flush()
                time.sleep(max(0, start + self.sent_bytes / rate - time.monotonic()))
        self.wfile.flush()
        if do.get("reset") is not None:
            time.sleep(0.05)  # what was sent should arrive before the reset overtakes it
            self.rst()
        if do.get("truncate") is not None:
            self.close_connection = True

    def error(self, status, code, message="", headers=None):
        self.answer(status, dict({"Content-Type": "application/json"}, **(headers or {})),
                    json.dumps({"errors": [{"code": code, "message": message}]}))

    # ---- every request
    def dispatch(self):
        s = self.state
        self.body_read = False
        self.do = {}
        self.line = {}
        started = time.time()
        try:
            if self.path.startswith("/_fake/"):
                self.control()
                return
            self.do = self.match_rules()
            line = {"method": self.command, "path": self.path, "status": 0,
                    "range": self.headers.get("Range"), "content_range": self.headers.get("Content-Range"),
                    "in": 0, "out": 0, "time": round(started, 3), "ms": 0, "port": self.server.server_port,
                    "authorization": (self.headers.get("Authorization") or "").split(" ")[0] or None,
                    "connection": self.client_address[1], "request_id": self.headers.get("X-Request-Id"),
                    "accept": self.headers.get("Accept"), "content_type": self.headers.get("Content-Type")}
            self.line = line
            with s.lock:
                s.log.append(line)  # when it comes; what became of it is filled in when it is over
            try:
                self.serve()
            finally:
                with s.lock:
                    s.answering.discard(self)
                    line.update({"status": self.answered, "in": self.read_bytes, "out": self.sent_bytes,
                                 "ms": round((time.time() - started) * 1000)})
                    if s.args.log:
                        with open(s.args.log, "a") as f:
                            f.write(json.dumps(line) + "\n")
        finally:
            if not self.body_read and self.has_body():
                self.close_connection = True

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = dispatch

    def match_rules(self):
        do = {}
        with self.state.lock:
            for r in self.state.rules:
                if r.get("method", self.command) != self.command or not re.search(r.get("path", ""), self.path):
                    continue
                if "port" in r and r["port"] != self.state.ports.index(self.server.server_port) + 1:
                    continue
                r["seen"] = r.get("seen", 0) + 1
                if r.get("after", 0) < r["seen"] <= r.get("after", 0) + r.get("times", 1 << 30):
                    do.update({k: v for k, v in r.items()
                               if k not in ("method", "path", "after", "times", "seen", "port")})
        return do

    def control(self):
        s = self.state
        what = self.path[len("/_fake/"):]
        data = self.body() if self.has_body() else b""
        out = ""
        until = time.time() + 0.3
        while what == "log" and s.answering and time.time() < until:
            time.sleep(0.001)  # who has an answer asks what was written of it: the line is filled in after it
        with s.lock:
            if what == "rules":
                s.rules = json.loads(data)
            elif what == "log":
                out = "".join(json.dumps(x) + "\n" for x in s.log)
            elif what == "uploads":
                out = json.dumps({k: len(v) for k, v in s.uploads.items()})
            elif what == "blobs":
                out = json.dumps({k: len(v) for k, v in s.blobs.items()})
            elif what == "manifests":
                out = json.dumps({"%s:%s" % k: v for k, v in s.tags.items()})
            elif what == "expire":
                s.tokens = {}
            elif what == "auth":
                d = json.loads(data)
                s.auth = d.get("auth", s.auth)
                s.token_life = d.get("token_life", s.token_life)
            elif what == "reset":
                s.clear()
            else:
                self.answer(404)
                return
        self.answer(200, {"Content-Type": "application/json"}, out)

    # ---- login
    def host(self):
        return self.headers.get("Host", "127.0.0.1:%d" % self.state.ports[0])

    def scheme(self):
        return "https" if self.state.args.tls_cert else "http"

    def right_basic(self, value):
        a = self.state.args
        return value == "Basic " + b64("%s:%s" % (a.user, a.password))

    def challenge(self, scope, sent):
        if self.state.auth == "basic" or (self.state.auth == "harbor" and sent):
            c = 'Basic realm="harbor"'
        else:
            c = 'Bearer service="fake, registry",realm="%s://%s/token",scope="%s"' % (self.scheme(), self.host(), scope)
        self.error(401, "UNAUTHORIZED", "unauthorized to access repository", {"Www-Authenticate": c})

    def allowed(self, repo, action, also=None):
        """False: a 401 was sent."""
        s = self.state
        if s.auth == "none":
            return True
        sent = self.headers.get("Authorization")
        scope = "repository:%s:%s" % (repo, "pull,push" if action == "push" else "pull")
        if also:
            scope += " repository:%s:pull" % also
        if sent and s.auth in ("basic", "harbor") and self.right_basic(sent):
            return True
        if sent and sent.startswith("Bearer "):
            with s.lock:
                scopes, end = s.tokens.get(sent[7:], ([], 0))
            good = time.monotonic() < end and any(
                x.split(":")[1] == repo and action in x.split(":")[2].split(",") for x in scopes)
            if good and (not also or any(x.split(":")[1] == also for x in scopes)):
                return True
        self.challenge(scope, sent)
        return False

    def token(self, query):
        s = self.state
        sent = self.headers.get("Authorization")
        scopes = query.get("scope", [])
        right = sent and self.right_basic(sent)
        if s.auth == "harbor":
            if not right:
                scopes = []  # anonymous, and 200 all the same
        elif not right:
            self.error(401, "UNAUTHORIZED", "wrong")
            return
        token = uuid.uuid4().hex
        with s.lock:
            s.tokens[token] = (scopes, time.monotonic() + s.token_life)
        self.answer(200, {"Content-Type": "application/json"},
                    json.dumps({"token": token, "access_token": "", "expires_in": s.token_life}))

    # ---- the registry
    def serve(self):
        do = self.do
        if do.get("delay"):
            time.sleep(do["delay"])
        if "status" in do:
            if do.get("read"):
                self.body()
            self.answer(do["status"], do.get("headers"), do.get("body", ""))
            return
        u = urllib.parse.urlsplit(self.path)
        query = urllib.parse.parse_qs(u.query)
        path = urllib.parse.unquote(u.path)
        if self.server.server_port == self.state.ports[1]:
            if self.headers.get("Authorization"):
                self.answer(400, {"Content-Type": "application/xml"},
                            "<?xml version='1.0'?><Error><Code>InvalidRequest</Code>"
                            "<Message>Only one auth mechanism allowed</Message></Error>")
                return
        if path == "/token":
            self.token(query)
            return
        if path in ("/v2", "/v2/"):
            if self.allowed("", "pull"):
                self.answer(200, {"Content-Type": "application/json"}, "{}")
            return
        for pattern, fn in ((r"^/v2/(.+)/blobs/uploads/(.*)$", self.upload), (r"^/v2/(.+)/blobs/([^/]+)$", self.blob),
                            (r"^/v2/(.+)/manifests/([^/]+)$", self.manifest)):
            m = re.match(pattern, path)
            if m:
                fn(m.group(1), m.group(2), query)
                return
        self.error(404, "NOT_FOUND")

    def redirect(self):
        how = self.do["redirect"]
        if "from=redirect" in self.path and how != "chain":
            return False
        mark = self.path + ("&" if "?" in self.path else "?") + "X-Signature=SIGNED&from=redirect"
        name = self.host().split(":")[0]
        where = {"other": "%s://%s:%d%s" % (self.scheme(), name, self.state.ports[1], mark),
                 "same": "%s://%s%s" % (self.scheme(), self.host(), mark), "relative": mark, "chain": mark,
                 "downgrade": "http://%s%s" % (self.host(), mark)}.get(how, how)
        self.answer(307, {"Location": where})
        return True

    def ranged(self, data, headers):
        m = re.match(r"^bytes=(\d+)-(\d*)$", self.headers.get("Range") or "")
        if not m or self.do.get("ignore_range"):
            self.answer(200, headers, data)
            return
        a = int(m.group(1))
        b = min(int(m.group(2)) if m.group(2) else len(data) - 1, len(data) - 1)
        if a >= len(data):
            self.answer(416, {"Content-Range": "bytes */%d" % len(data)})
            return
        headers["Content-Range"] = "bytes %d-%d/%d" % (a, b, len(data))
        self.answer(206, headers, data[a:b + 1])

    def blob(self, repo, digest, query):
        s = self.state
        if self.server.server_port == s.ports[0] and not self.allowed(repo, "pull"):
            return
        if "redirect" in self.do and self.redirect():
            return
        with s.lock:
            data = s.blobs.get(digest) if digest in s.where.get(repo, ()) else None
        if data is None:
            self.error(404, "BLOB_UNKNOWN", "blob unknown to registry")
            return
        self.ranged(data, {"Content-Type": "application/octet-stream", "Docker-Content-Digest": digest})

    def manifest(self, repo, ref, query):
        s = self.state
        if not self.allowed(repo, "pull" if self.command in ("GET", "HEAD") else "push"):
            return
        if "redirect" in self.do and self.redirect():
            return
        if self.command == "PUT":
            data = self.body()
            digest = "sha256:" + hashlib.sha256(data).hexdigest()
            if ":" in ref and ref != digest:
                self.error(400, "DIGEST_INVALID")
                return

            def apply():
                with s.lock:
                    s.manifests[repo, digest] = (self.headers.get("Content-Type"), data)
                    if ":" not in ref:
                        s.tags[repo, ref] = digest
            if self.do.get("late"):
                threading.Timer(self.do["late"], apply).start()
                self.line["late"] = self.do["late"]  # it is all here: who sent it may die now
                time.sleep(self.do["late"] + 0.05)
            else:
                apply()
            self.answer(201, {"Docker-Content-Digest": digest, "Location": "/v2/%s/manifests/%s" % (repo, digest)})
            return
        with s.lock:
            digest = ref if ":" in ref else s.tags.get((repo, ref))
            found = s.manifests.get((repo, digest))
        if not found or (found[0] or "") not in (self.headers.get("Accept") or ""):
            self.error(404, "MANIFEST_UNKNOWN", "manifest unknown")
            return
        self.answer(200, {"Content-Type": found[0], "Docker-Content-Digest": digest}, found[1])

    # ---- uploads
    def session(self, repo, ident):
        p = "/v2/%s/blobs/uploads/%s?_state=%s" % (repo, ident, uuid.uuid4().hex)
        name = self.host().split(":")[0]
        how = self.do.get("location")
        return {"relative": p, "query": p + "&more=1", "other_port": "http://%s:9%s" % (name, p),
                "https": "https://%s%s" % (self.host(), p)}.get(how, "%s://%s%s" % (self.scheme(), self.host(), p))

    def received(self, repo, ident, n, status):
        h = {"Location": self.session(repo, ident), "Docker-Upload-UUID": ident}
        if not self.do.get("no_range_header"):
            h["Range"] = "0-%d" % max(0, n - 1)
        if self.do.get("chunk_min"):
            h["OCI-Chunk-Min-Length"] = self.do["chunk_min"]
        self.answer(status, h)

    def upload(self, repo, ident, query):
        s = self.state
        source = query.get("from", [None])[0] if "mount" in query else None
        if not self.allowed(repo, "push", source):
            return
        if self.command == "POST":
            self.begin(repo, query, source)
            return
        with s.lock:
            have = s.uploads.get(ident)
        if have is None:
            self.error(404, "BLOB_UPLOAD_UNKNOWN", "upload unknown")
        elif self.command == "DELETE":
            with s.lock:
                s.uploads.pop(ident, None)
            self.answer(204)
        elif self.command in ("GET", "HEAD"):
            self.received(repo, ident, len(have), 204)
        elif self.command == "PATCH":
            self.patch(repo, ident, have)
        else:
            self.commit(repo, ident, have, query)

    def begin(self, repo, query, source):
        s = self.state
        if source:
            want = self.do.get("mount")
            with s.lock:
                there = query["mount"][0] in s.where.get(source, ())
                if want == 401:
                    pass
                elif (want or 201) == 201 and there:
                    s.where.setdefault(repo, set()).add(query["mount"][0])
                    self.answer(201, {"Docker-Content-Digest": query["mount"][0]})
                    return
            if want == 401:
                self.error(401, "UNAUTHORIZED", "action: push", {"Www-Authenticate": ""})
                return
        ident = str(uuid.uuid4())
        with s.lock:
            s.uploads[ident] = bytearray()
        self.received(repo, ident, 0, 202)

    def read_limited(self, to):
        limit = self.do.get("max_body")
        if limit is not None and int(self.headers.get("Content-Length") or 0) > limit:
            self.answer(413, {"Content-Type": "text/html"}, "<html><title>413 Request Entity Too Large</title></html>")
            return False
        got = 0
        for p in self.pieces():
            got += len(p)
            if limit is not None and got > limit:
                self.body_read = False  # the rest is not looked at
                self.answer(413, {"Content-Type": "text/html"},
                            "<html><title>413 Request Entity Too Large</title></html>")
                return False
            to += p
            if self.do.get("rate"):
                time.sleep(len(p) / self.do["rate"])
            if self.do.get("reset") is not None and got >= self.do["reset"]:
                self.rst()
        return True

    def patch(self, repo, ident, have):
        s = self.state
        cr = self.headers.get("Content-Range")
        if cr and int(cr.split("-")[0]) != len(have):
            self.error(416, "RANGE_INVALID")
            return
        got = bytearray()
        if not self.read_limited(got):
            return
        if "keep" in self.do:
            got = got[:self.do["keep"]]
        with s.lock:
            have += got
        self.received(repo, ident, len(have), 202)

    def commit(self, repo, ident, have, query):
        s = self.state
        rest = bytearray()
        if not self.read_limited(rest):
            return
        data = bytes(have) + bytes(rest)
        digest = query.get("digest", [""])[0]
        alg = digest.split(":")[0]
        if alg not in ("sha256", "sha512") or hashlib.new(alg, data).hexdigest() != digest.split(":")[1]:
            self.error(400, "DIGEST_INVALID", "provided digest did not match uploaded content")
            return

        def apply():
            with s.lock:
                s.uploads.pop(ident, None)
                s.blobs[digest] = data
                s.where.setdefault(repo, set()).add(digest)
        if self.do.get("late"):
            threading.Timer(self.do["late"], apply).start()
            self.line["late"] = self.do["late"]
            time.sleep(self.do["late"] + 0.05)
        else:
            apply()
        self.answer(201, {"Docker-Content-Digest": digest, "Location": "/v2/%s/blobs/%s" % (repo, digest)})


class Server(socketserver.ThreadingMixIn, HTTPServer):
    daemon_threads = True
    request_queue_size = 128
    context = None

    def finish_request(self, request, client_address):
        request.settimeout(60)
        if self.context:
            request = self.context.wrap_socket(request, server_side=True)
        super().finish_request(request, client_address)

    def handle_error(self, request, client_address):
        kind = sys.exc_info()[0]
        if not issubclass(kind, (OSError, ssl.SSLError, ValueError)):
            super().handle_error(request, client_address)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--auth", default="none", choices=["none", "basic", "bearer", "harbor"])
    p.add_argument("--user", default="robot$payments+acceld")
    p.add_argument("--password", default="secret:with:colons")
    p.add_argument("--token-life", type=float, default=300)
    for o in ("--rules", "--log", "--tls-cert", "--tls-key", "--client-ca"):
        p.add_argument(o)
    args = p.parse_args()
    state = State(args)
    if args.rules:
        with open(args.rules) as f:
            state.rules = json.load(f)
    Handler.state = state
    servers = [Server(("127.0.0.1", 0), Handler) for _ in range(2)]
    if args.tls_cert:
        Server.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        Server.context.load_cert_chain(args.tls_cert, args.tls_key)
        if args.client_ca:
            Server.context.load_verify_locations(args.client_ca)
            Server.context.verify_mode = ssl.CERT_REQUIRED
    state.ports = [s.server_port for s in servers]
    for s in servers:
        threading.Thread(target=s.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()
    print(state.ports[0], state.ports[1], flush=True)
    if sys.stdin is None or sys.stdin.closed:
        threading.Event().wait()
    while os.read(0, 4096):
        pass


if __name__ == "__main__":
    main()
