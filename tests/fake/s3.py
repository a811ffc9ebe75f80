#!/usr/bin/env python3
"""A bucket in memory that checks every signature with an implementation of its own, and can be made to fail: S3 (signature
version 4) and OSS (version 1), by the Authorization that comes.

  s3.py [--bucket B] [--region R] [--key-id ID] [--secret S]

Prints its port on one line and serves until its stdin closes (or it is killed).  Path-style only: /BUCKET/KEY.

What is refused: a wrong signature or scope, a date 15 minutes off, a body that is not what x-amz-content-sha256 or
Content-MD5 says, an unsigned x-amz-* header, a part under 5 MiB that is not the last, parts of different sizes, ETags and
orders that are not those of the parts, keys that climb.

Control (not signed):
  PUT /_fake/rules    a JSON list of rules, replaces the old ones    GET /_fake/log      the requests so far, JSON lines
  GET /_fake/objects  {key: size}                                    GET /_fake/uploads  {id: key} of those still open
  GET /_fake/bytes/KEY

A rule: {"method": M, "path": REGEX, "after": N, "times": N, ...}; the regex is searched in path?query; the first `after`
requests that match pass, then `times` (default: all) are hit.
  status N, code TEXT   that answer, the body read        reset N       reads N bytes of the body, then RST
  drop_answer true      does it, then closes              error_in_200  200 with <Error> in it (copies, completions)
  delay S               before the answer                 answer TEXT   200 and that body
"""
import argparse, base64, calendar, email.utils, hashlib, hmac, json, re, socket, struct, sys, threading, time
import urllib.parse, uuid
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import ThreadingMixIn
import xml.etree.ElementTree as ET

MIN_PART = 5 << 20
OSS_SUBRESOURCES = {"uploads", "uploadId", "partNumber", "acl", "delete", "append", "position", "tagging"}
lock = threading.RLock()
objects, uploads, rules, log = {}, {}, [], []


class Refused(Exception):
    def __init__(self, status, code, message=""):
        self.status, self.code, self.message = status, code, message


def quote(s, safe="-._~"):
    return urllib.parse.quote(s, safe=safe)


def sha256(b):
    return hashlib.sha256(b).hexdigest()


def check_v4(h, body):
    m = re.fullmatch(r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/s3/aws4_request, ?"
                     r"SignedHeaders=([a-z0-9;-]+), ?Signature=([0-9a-f]{64})", h.headers["Authorization"])
    if not m:
        raise Refused(400, "AuthorizationHeaderMalformed", "not understood")
    key_id, day, region, signed, signature = m.groups()
    if key_id != args.key_id:
        raise Refused(403, "InvalidAccessKeyId")
    if region != args.region:
        raise Refused(400, "AuthorizationHeaderMalformed", f"the region is {args.region}")
    names = signed.split(";")
    sent = [k.lower() for k in h.headers.keys()]
    if names != sorted(names) or "host" not in names or any(k.startswith("x-amz-") and k not in names for k in sent):
        raise Refused(403, "AccessDenied", "there were headers present in the request which were not signed")
    date = h.headers.get("x-amz-date", "")
    try:
        at = calendar.timegm(time.strptime(date, "%Y%m%dT%H%M%SZ"))
    except ValueError:
        raise Refused(403, "AccessDenied", "x-amz-date")
    if date[:8] != day or abs(at - time.time()) > 900:
        raise Refused(403, "RequestTimeTooSkewed")
    payload = h.headers.get("x-amz-content-sha256", "")
    if payload != sha256(body):
        raise Refused(400, "XAmzContentSHA256Mismatch")
    raw, _, query = h.path.partition("?")
    path = "/".join(quote(urllib.parse.unquote(p)) for p in raw.split("/"))
    if path != raw:
        raise Refused(400, "InvalidURI", "encoded in another way")
    pairs = sorted((quote(k), quote(v)) for k, v in urllib.parse.parse_qsl(query, keep_blank_values=True))
    canonical = "\n".join([h.command, path, "&".join(f"{k}={v}" for k, v in pairs)] +
                          [f"{n}:{' '.join(h.headers[n].split())}" for n in names] + ["", signed, payload])
    scope = f"{day}/{region}/s3/aws4_request"
    key = ("AWS4" + args.secret).encode()
    for part in (day, region, "s3", "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    want = hmac.new(key, f"AWS4-HMAC-SHA256\n{date}\n{scope}\n{sha256(canonical.encode())}".encode(),
                    hashlib.sha256).hexdigest()
    if not hmac.compare_digest(want, signature):
        raise Refused(403, "SignatureDoesNotMatch", canonical)


def check_oss(h, body):
    key_id, _, signature = h.headers["Authorization"][4:].partition(":")
    if key_id != args.key_id:
        raise Refused(403, "InvalidAccessKeyId")
    date = h.headers.get("Date", "")
    at = email.utils.parsedate_to_datetime(date).timestamp() if date else 0
    if abs(at - time.time()) > 900:
        raise Refused(403, "RequestTimeTooSkewed")
    md5 = h.headers.get("Content-MD5", "")
    if body and md5 != base64.b64encode(hashlib.md5(body).digest()).decode():
        raise Refused(400, "InvalidDigest")
    raw, _, query = h.path.partition("?")
    special = [(k, v) for k, v in (p.partition("=")[::2] for p in query.split("&") if p) if k in OSS_SUBRESOURCES]
    resource = urllib.parse.unquote(raw)
    if special:
        resource += "?" + "&".join(k + ("=" + urllib.parse.unquote(v) if v else "") for k, v in sorted(special))
    own = "".join(f"{k}:{v.strip()}\n" for k, v in sorted((k.lower(), v) for k, v in h.headers.items())
                  if k.startswith("x-oss-"))
    text = f"{h.command}\n{md5}\n{h.headers.get('Content-Type', '')}\n{date}\n{own}{resource}"
    want = base64.b64encode(hmac.new(args.secret.encode(), text.encode(), hashlib.sha1).digest()).decode()
    if not hmac.compare_digest(want, signature):
        raise Refused(403, "SignatureDoesNotMatch", text)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *a):
        pass

    def answer(self, status, body=b"", headers=()):
        self.entry["status"] = status
        self.send_response_only(status)
        for k, v in headers:
            self.send_header(k, v)
        if not any(k == "Content-Length" for k, _ in headers):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def xml(self, status, text):
        self.answer(status, ('<?xml version="1.0" encoding="UTF-8"?>\n' + text).encode(), [("Content-Type", "application/xml")])

    def rule(self):
        hit = {}
        with lock:
            for r in rules:
                if r.get("method", self.command) != self.command or not re.search(r.get("path", ""), self.path):
                    continue
                r["seen"] = r.get("seen", 0) + 1
                n = r["seen"] - r.get("after", 0)
                if n >= 1 and n <= r.get("times", 1 << 30):
                    hit.update(r)
        return hit

    def cut(self):
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def handle_any(self):
        if self.path.startswith("/_fake/"):
            self.entry = {}
            return self.control()
        self.entry = {"method": self.command, "path": self.path, "status": 0,
                      "auth": (self.headers.get("Authorization") or "").split(" ")[0]}
        with lock:
            log.append(self.entry)
        hit = self.rule()
        size = int(self.headers.get("Content-Length") or 0)
        if "reset" in hit:
            self.rfile.read(min(size, hit["reset"]))
            return self.cut()
        body = self.rfile.read(size) if size else b""
        time.sleep(hit.get("delay", 0))
        try:
            if "status" in hit:
                raise Refused(hit["status"], hit.get("code", "InternalError"), self.headers.get("Authorization"))
            if "Authorization" not in self.headers:
                raise Refused(403, "AccessDenied", "anonymous")
            self.oss = self.headers["Authorization"].startswith("OSS ")
            (check_oss if self.oss else check_v4)(self, body)
            if "answer" in hit:
                return self.answer(200, hit["answer"].encode())
            if "error_in_200" in hit:
                return self.xml(200, "<Error><Code>InternalError</Code></Error>")
            if hit.get("drop_answer"):
                self.answer = lambda *a, **k: None
                self.serve(body)
                return self.cut()
            self.serve(body)
        except Refused as e:
            if e.status == 404 and self.command == "HEAD":
                return self.answer(404)
            self.xml(e.status, f"<Error><Code>{e.code}</Code><Message>{e.message}</Message></Error>")

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_any

    def control(self):
        what, _, key = self.path[7:].partition("/")
        with lock:
            if self.command == "PUT":
                rules[:] = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                return self.answer(200)
            if what == "bytes":
                b = objects.get(urllib.parse.unquote(key))
                return self.answer(404 if b is None else 200, b or b"")
            b = {"log": "\n".join(json.dumps(x) for x in log), "objects": json.dumps({k: len(v) for k, v in objects.items()}),
                 "uploads": json.dumps({k: v["key"] for k, v in uploads.items()})}[what]
        self.answer(200, b.encode())

    # ---- objects
    def serve(self, body):
        raw, _, query = self.path.partition("?")
        _, bucket, *rest = urllib.parse.unquote(raw).split("/", 2)
        q = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
        if bucket != args.bucket:
            raise Refused(404, "NoSuchBucket")
        key = rest[0] if rest else ""
        if not key or any(p in (".", "..") for p in key.split("/")):
            raise Refused(400, "InvalidURI")
        source = self.headers.get("x-oss-copy-source" if self.oss else "x-amz-copy-source")
        part_range = self.headers.get("x-oss-copy-source-range" if self.oss else "x-amz-copy-source-range")
        with lock:
            if source is not None:
                b, k = urllib.parse.unquote(source).lstrip("/").split("/", 1)
                if b != args.bucket or k not in objects:
                    raise Refused(404, "NoSuchKey")
                body = objects[k]
                if part_range:
                    m = re.fullmatch(r"bytes=(\d+)-(\d+)", part_range)
                    if not m or int(m[2]) >= len(body):
                        raise Refused(400, "InvalidArgument")
                    body = body[int(m[1]):int(m[2]) + 1]
            getattr(self, "on_" + self.command.lower())(key, q, body, source)

    def on_head(self, key, q, body, source):
        if key not in objects:
            raise Refused(404, "NoSuchKey")
        self.answer(200, headers=[("Content-Length", str(len(objects[key])))])

    def on_get(self, key, q, body, source):
        if key not in objects:
            raise Refused(404, "NoSuchKey")
        b = objects[key]
        m = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if not m:
            return self.answer(200, b)
        if int(m[1]) >= len(b):
            raise Refused(416, "InvalidRange")
        piece = b[int(m[1]):int(m[2]) + 1]
        self.answer(206, piece, [("Content-Range", f"bytes {m[1]}-{int(m[1]) + len(piece) - 1}/{len(b)}")])

    def on_put(self, key, q, body, source):
        etag = '"%s"' % hashlib.md5(body).hexdigest()
        if "uploadId" in q:
            u = uploads.get(q["uploadId"])
            if not u or u["key"] != key:
                raise Refused(404, "NoSuchUpload")
            u["parts"][int(q["partNumber"])] = (etag, body)
        elif q:
            raise Refused(400, "InvalidArgument")
        else:
            objects[key] = body
        if source is not None:
            return self.xml(200, f"<CopyResult><ETag>{etag.replace(chr(34), '&quot;')}</ETag></CopyResult>")
        self.answer(200, headers=[("ETag", etag)])

    def on_post(self, key, q, body, source):
        if "uploads" in q:
            # what an id looks like is the store's business
            u = uuid.uuid4().hex + "&=+/ ~"
            uploads[u] = {"key": key, "parts": {}}
            name = urllib.parse.quote(key)
            shown = u.replace("&", "&amp;")
            return self.xml(200, f"<InitiateMultipartUploadResult><Key>{name}</Key><UploadId>{shown}</UploadId>"
                                 "</InitiateMultipartUploadResult>")
        u = uploads.get(q.get("uploadId"))
        if not u or u["key"] != key:
            raise Refused(404, "NoSuchUpload")
        asked = [(int(p.findtext("PartNumber")), p.findtext("ETag")) for p in ET.fromstring(body)]
        have = sorted((n, t[0]) for n, t in u["parts"].items())
        if asked != have or not asked:
            raise Refused(400, "InvalidPart")
        parts = [u["parts"][n][1] for n, _ in asked]
        if any(len(p) < MIN_PART for p in parts[:-1]) or len({len(p) for p in parts[:-1]}) > 1:
            raise Refused(400, "EntityTooSmall")
        objects[key] = b"".join(parts)
        del uploads[q["uploadId"]]
        self.xml(200, "<CompleteMultipartUploadResult><ETag>&quot;x&quot;</ETag></CompleteMultipartUploadResult>")

    def on_delete(self, key, q, body, source):
        if "uploadId" in q:
            if not uploads.pop(q["uploadId"], None):
                raise Refused(404, "NoSuchUpload")
        else:
            objects.pop(key, None)
        self.answer(204)


class Server(ThreadingMixIn, HTTPServer):
    daemon_threads = True

    def handle_error(self, request, client):
        if not isinstance(sys.exc_info()[1], (OSError, ValueError)):
            super().handle_error(request, client)


p = argparse.ArgumentParser()
p.add_argument("--bucket", default="blobs")
p.add_argument("--region", default="eu-test-1")
p.add_argument("--key-id", default="AKIDTEST")
p.add_argument("--secret", default="s3cret/of+the=test")
args = p.parse_args()
server = Server(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
sys.stdin.read()
