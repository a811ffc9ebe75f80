"""What the integration and acceptance tests share: registries on free ports, images, our programs; all ended by pid."""
import atexit, gzip, hashlib, json, os, re, shutil, socket, subprocess, sys, tempfile, time, urllib.error, urllib.request

sys.path.append(os.path.dirname(os.path.abspath(__file__)))
from freeport import free_port

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
VARIANT = os.environ.get("ACCEL_VARIANT", "release")
BIN = os.path.join(TOP, "build") if VARIANT == "release" else os.path.join(TOP, "build", VARIANT)
ACCELCTL = os.path.join(BIN, "accelctl")
TYPES = ", ".join("application/vnd." + t for t in (
    "oci.image.index.v1+json", "oci.image.manifest.v1+json", "docker.distribution.manifest.list.v2+json",
    "docker.distribution.manifest.v2+json"))

_children = []
_failed = [0]


def ok(cond, name, why=""):
    if cond:
        print(f"ok {name}", flush=True)
    else:
        _failed[0] += 1
        print(f"not ok {name}: {why}", flush=True)
    return bool(cond)


def done():
    sys.exit(1 if _failed[0] else 0)


def need(*programs):
    missing = [p for p in programs if not shutil.which(p)]
    if missing:
        print(f"skip {' '.join(missing)} not installed")
        sys.exit(0)


def tmpdir():
    d = tempfile.mkdtemp(prefix="accel-test-")
    atexit.register(shutil.rmtree, d, True)
    return d


def wait_for(what, fn, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            r = fn()
            if r:
                return r
        except OSError:
            pass
        time.sleep(0.05)
    raise RuntimeError(f"{what}: not within {seconds} s")


def spawn(*a, **kw):
    p = subprocess.Popen(a, **kw)
    _children.append(p)
    return p


@atexit.register
def _end():
    for p in _children:
        if p.poll() is None:
            p.terminate()
            try:
                p.wait(5)
            except subprocess.TimeoutExpired:
                p.kill()
                p.wait()


def http(url, method="GET", data=None, headers={}, raw=False):
    q = urllib.request.Request(url, data=data, method=method, headers=headers)
    try:
        with urllib.request.urlopen(q, timeout=60) as r:
            b = r.read()
            return (r.status, dict(r.headers), b) if raw else b
    except urllib.error.HTTPError as e:
        if raw:
            return e.code, dict(e.headers), e.read()
        raise


class Registry:
    """Debian's docker-registry.  accesslog: requests() tells what it was asked.  login: (user, password)."""

    def __init__(self, d, accesslog=False, login=None, name="registry"):
        self.dir = os.path.join(d, name)
        os.makedirs(self.dir, exist_ok=True)
        self.port = free_port()
        self.host = f"127.0.0.1:{self.port}"
        conf = os.path.join(d, f"{name}.yml")
        auth = ""
        if login:
            line = subprocess.run(["htpasswd", "-niB", login[0]], input=login[1].encode(), stdout=subprocess.PIPE, check=True)
            with open(f"{conf}.htpasswd", "wb") as f:
                f.write(line.stdout)
            auth = f"auth: {{htpasswd: {{realm: lab, path: {conf}.htpasswd}}}}\n"
        with open(conf, "w") as f:
            f.write(f"version: 0.1\nlog: {{level: error, accesslog: {{disabled: {str(not accesslog).lower()}}}}}\n"
                    f"storage: {{filesystem: {{rootdirectory: {self.dir}}}, delete: {{enabled: true}}}}\n"
                    f"http: {{addr: '{self.host}'}}\n{auth}")
        self.log = f"{conf}.log"
        with open(self.log, "wb") as out:
            self.proc = spawn("docker-registry", "serve", conf, stdout=out, stderr=subprocess.DEVNULL)
        wait_for("docker-registry", lambda: http(f"http://{self.host}/v2/", raw=True)[0] in (200, 401))

    def requests(self, since=0):
        """(method, path, status, bytes of the answer) of each request, from line `since` on."""
        found = []
        with open(self.log, errors="replace") as f:
            for line in list(f)[since:]:
                m = re.search(r'"([A-Z]+) (\S+) HTTP/[0-9.]+" (\d+) (\d+)', line)
                if m:
                    found.append((m[1], m[2], int(m[3]), int(m[4])))
        return found

    def mark(self):
        """For requests(since)."""
        with open(self.log, "rb") as f:
            return sum(1 for _ in f)

    def open_uploads(self):
        n = 0
        for root, dirs, _ in os.walk(self.dir):
            if os.path.basename(root) == "_uploads":  # it stores a hash state after a DELETE, which it answered with 204
                n += sum(os.path.exists(f"{root}/{x}/startedat") for x in dirs)
        return n


class Fake:
    """tests/fake/registry.py: fails as it is told."""

    def __init__(self, *args):
        self.proc = spawn(sys.executable, os.path.join(TOP, "tests/fake/registry.py"), *args, stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, text=True)
        self.port = int(self.proc.stdout.readline().split()[0])
        self.host = f"127.0.0.1:{self.port}"

    def rules(self, *rules):
        http(f"http://{self.host}/_fake/rules", "PUT", json.dumps(rules).encode())

    def ask(self, what):
        b = http(f"http://{self.host}/_fake/{what}")
        return [json.loads(line) for line in b.splitlines()] if what == "log" else json.loads(b)


def manifest(host, repo, ref):
    _, h, b = http(f"http://{host}/v2/{repo}/manifests/{ref}", headers={"Accept": TYPES}, raw=True)
    return (json.loads(b), "sha256:" + hashlib.sha256(b).hexdigest()) if b.startswith(b"{") else (None, None)


def blob(host, repo, digest):
    return http(f"http://{host}/v2/{repo}/blobs/{digest}")


def unpack(b):
    if b[:2] == b"\x1f\x8b":
        return gzip.decompress(b)
    if b[:4] == b"\x28\xb5\x2f\xfd" or b[:1] in b"\x50" and b[1:4] == b"\x2a\x4d\x18":
        return subprocess.run(["zstd", "-dc"], input=b, stdout=subprocess.PIPE, check=True).stdout
    return b


def layers_fit(host, repo, m):
    """Every layer's digest, size and what it unpacks to, against manifest and config.  "" or what is wrong."""
    c = blob(host, repo, m["config"]["digest"])
    if len(c) != m["config"]["size"]:
        return "config size"
    ids = json.loads(c)["rootfs"]["diff_ids"]
    if len(ids) != len(m["layers"]):
        return f"{len(m['layers'])} layers, {len(ids)} diff_ids"
    for i, (l, want) in enumerate(zip(m["layers"], ids)):
        b = blob(host, repo, l["digest"])
        if "sha256:" + hashlib.sha256(b).hexdigest() != l["digest"] or len(b) != l["size"]:
            return f"layer {i}: digest or size"
        if "sha256:" + hashlib.sha256(unpack(b)).hexdigest() != want:
            return f"layer {i}: diff_id"
    return ""


def mkimage(d, *args):
    subprocess.run([sys.executable, os.path.join(TOP, "tests/tools/mkimage.py"), d, "v1", *args], check=True)


def push(layout, host, repo, tag="v1", fmt=None):
    subprocess.run(["skopeo", "copy", "-q", *(["--format", fmt] if fmt else ["--all"]), "--dest-tls-verify=false",
                    f"oci:{layout}:v1", f"docker://{host}/{repo}:{tag}"], check=True)


def config(path, host, driver="estargz", suffix="-esgz", options={}, extra="", more_rules=""):
    opts = json.dumps(options)
    with open(path, "w") as f:
        f.write(f"""provider:
  source:
    "{host}":
  gcpolicy: {{threshold: 1GB}}
converter:
  worker: 2
  {extra}
  driver: {{type: {driver}, config: {opts}}}
  rules:
    - tag_suffix: {suffix}
{more_rules}""")
    return path


def accelctl(*args, env=None, timeout=300):
    return subprocess.run([ACCELCTL, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=timeout,
                          env=dict(os.environ, **(env or {})))
