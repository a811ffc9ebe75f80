"""What the tests of the whole service share: a temporary folder, real servers on free loopback ports, our programs, small
images, events as Harbor sends them.  Everything that was started is ended by its pid."""
import atexit, base64, gzip, hashlib, http.client, io, json, os, random, re, shutil, signal, socket, subprocess, sys, tarfile
import tempfile, threading, time, urllib.parse

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'tools'))
from freeport import free_port

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
VARIANT = os.environ.get('ACCEL_VARIANT', 'release')
BUILD = f'{TOP}/build' if VARIANT == 'release' else f'{TOP}/build/{VARIANT}'
FAULT = f'{TOP}/build/fault'
SLOW = 4 if VARIANT in ('asan', 'tsan') else 1

_results = []
_cleanup = []


def ok(name):
    _results.append(True)
    print(f'ok {name}', flush=True)


def not_ok(name, why):
    _results.append(False)
    print(f'not ok {name}: {why}', flush=True)


def check(name, good, why=''):
    ok(name) if good else not_ok(name, why)
    return good


def finish(lab=None):
    if lab and not all(_results):
        lab.show_logs()
    sys.exit(0 if _results and all(_results) else 1)


def wait_for(what, f, seconds=30):
    """f's first true value; fails loudly."""
    end = time.monotonic() + seconds * SLOW
    while True:
        try:
            v = f()
        except (OSError, http.client.HTTPException, ValueError):
            v = None
        if v:
            return v
        if time.monotonic() > end:
            raise TimeoutError(f'{what}: not within {seconds * SLOW} s')
        time.sleep(0.03)


class Process:
    def __init__(self, lab, name, argv, env=None, stdin=None):
        self.lab, self.name, self.argv = lab, name, argv
        self.log = f'{lab.dir}/{name}.log'
        self.env = dict(os.environ, **(env or {}))
        self.proc = None
        self.stdin = stdin if stdin is not None else subprocess.DEVNULL
        self.start()

    def start(self):
        with open(self.log, 'ab') as f:
            self.proc = subprocess.Popen(self.argv, stdin=self.stdin, stdout=f, stderr=f, env=self.env,
                                         start_new_session=True)
        self.lab.processes.append(self)
        return self

    @property
    def pid(self):
        return self.proc.pid

    def running(self):
        return self.proc.poll() is None

    def kill(self, signo=signal.SIGKILL):
        if self.running():
            os.kill(self.pid, signo)

    def stop(self, signo=signal.SIGTERM, seconds=30):
        """The exit status."""
        self.kill(signal.SIGCONT)
        self.kill(signo)
        try:
            return self.proc.wait(seconds * SLOW)
        except subprocess.TimeoutExpired:
            self.proc.kill()
            self.proc.wait()
            raise

    def text(self):
        with open(self.log, errors='replace') as f:
            return f.read()


class Lab:
    """with Lab('name') as lab: ..."""

    def __init__(self, name):
        self.dir = tempfile.mkdtemp(prefix=f'accel-{name}.')
        os.chmod(self.dir, 0o755)
        self.processes = []
        self.n = 0
        self.auth_header = 'Bearer webhook-' + os.urandom(9).hex()
        self.registry_password = self.redis_password = None

    def __enter__(self):
        signal.signal(signal.SIGTERM, lambda *a: sys.exit(1))
        atexit.register(self.close)
        return self

    def __exit__(self, *a):
        self.close()

    def close(self):
        for p in reversed(self.processes):
            if p.running():
                p.kill(signal.SIGCONT)
                p.kill(signal.SIGKILL)
                p.proc.wait()
        self.processes = []
        if os.environ.get('KEEP'):
            print('# kept', self.dir)
        else:
            shutil.rmtree(self.dir, ignore_errors=True)

    def show_logs(self, lines=25):
        for name in sorted(os.listdir(self.dir)):
            if name.endswith('.log'):
                text = open(f'{self.dir}/{name}', errors='replace').read().splitlines()
                print(f'# --- {name}')
                for line in text[-lines:]:
                    print('#', line[:400])

    # ---- real servers

    def registry(self, port=None, auth=False):
        """Debian's docker-registry; self.host is HOST:PORT."""
        self.registry_port = port or free_port()
        self.host = f'127.0.0.1:{self.registry_port}'
        os.makedirs(f'{self.dir}/blobs', exist_ok=True)
        conf = {'version': 0.1, 'log': {'level': 'warn'},
                'storage': {'filesystem': {'rootdirectory': f'{self.dir}/blobs'}, 'delete': {'enabled': True}},
                'http': {'addr': self.host}}
        if auth:
            self.registry_password = 'registry-' + os.urandom(9).hex()
            line = subprocess.run(['htpasswd', '-niB', 'robot$accel'], input=self.registry_password.encode(),
                                  stdout=subprocess.PIPE, check=True).stdout
            open(f'{self.dir}/htpasswd', 'wb').write(line)
            conf['auth'] = {'htpasswd': {'realm': 'lab', 'path': f'{self.dir}/htpasswd'}}
        open(f'{self.dir}/registry.yml', 'w').write(json.dumps(conf))
        p = Process(self, 'registry', ['docker-registry', 'serve', f'{self.dir}/registry.yml'])
        wait_for('docker-registry', lambda: self.http('GET', self.host, '/v2/')[0] in (200, 401))
        return p

    def fake(self):
        """tests/fake/registry.py in the registry's place: fails as self.rules() tells it."""
        r, self.fake_stdin = os.pipe()  # it ends with this pipe
        p = Process(self, 'fake', [sys.executable, f'{TOP}/tests/fake/registry.py'], stdin=r)
        os.close(r)
        self.registry_port = int(wait_for('the fake registry', p.text).split()[0])
        self.host = f'127.0.0.1:{self.registry_port}'
        return p

    def rules(self, *rules):
        assert self.http('PUT', self.host, '/_fake/rules', json.dumps(rules))[0] == 200

    def fake_log(self):
        return [json.loads(x) for x in self.http('GET', self.host, '/_fake/log')[1].splitlines()]

    def requests(self, agent='acceld/'):
        """[(method, path, status, bytes of the answer)] of our programs, from the registry's access log."""
        mark = f'/v2/?mark={os.urandom(6).hex()}'
        self.http('GET', self.host, mark)
        wait_for('the access log', lambda: mark in open(f'{self.dir}/registry.log').read())
        lines = re.findall(r'"([A-Z]+) (\S+) HTTP/[^"]*" (\d+) (\d+) "[^"]*" "([^"]*)"', open(f'{self.dir}/registry.log').read())
        return [(m, urllib.parse.unquote(p), int(s), int(n)) for m, p, s, n, a in lines if a.startswith(agent)]

    def redis(self, *extra, password=None, durability='everysec', port=None):
        self.redis_port = port or free_port()
        self.redis_password = password
        os.makedirs(f'{self.dir}/redis', exist_ok=True)
        conf = (f'port {self.redis_port}\nbind 127.0.0.1\ndir {self.dir}/redis\nappendonly yes\n'
                f'appendfsync {durability}\nsave ""\nmaxmemory-policy noeviction\n')
        if password:
            conf += f'requirepass {password}\n'
            open(f'{self.dir}/redis-password', 'w').write(password + '\n')
        open(f'{self.dir}/redis.conf', 'w').write(conf)
        p = Process(self, 'redis', ['redis-server', f'{self.dir}/redis.conf', *extra])
        wait_for('redis-server', lambda: self.redis_cli('PING') == 'PONG')
        return p

    def redis_cli(self, *words):
        env = dict(os.environ)
        if self.redis_password:
            env['REDISCLI_AUTH'] = self.redis_password
        r = subprocess.run(['redis-cli', '-p', str(self.redis_port), *map(str, words)], env=env,
                           stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=30)
        return r.stdout.strip()

    # ---- our programs

    def config(self, name='config.yaml', targets=None, **over):
        """Writes a configuration; `over` are dotted keys with __ for dots."""
        self.api_port = over.pop('api_port', None) or free_port()
        c = {'server': {'name': 'API', 'host': '127.0.0.1', 'port': self.api_port},
             'metric': {'enabled': True},
             'provider': {'work_dir': f'{self.dir}/state',
                          'source': {self.host: {'webhook': {'auth_header': self.auth_header}}}},
             'converter': {'worker': 2},
             'rules': [{'name': 'all', 'match': {'repository': '**'},
                        'targets': targets or [{'driver': 'estargz', 'tag': '{tag}-esgz', 'overwrite': True}]}],
             'worker': {'listen': '127.0.0.1:0', 'threads': 1}}
        if self.registry_password:
            c['provider']['source'][self.host]['auth'] = base64.b64encode(
                f'robot$accel:{self.registry_password}'.encode()).decode()
        if hasattr(self, 'redis_port'):
            c['redis'] = {'addr': f'127.0.0.1:{self.redis_port}'}
            if self.redis_password:
                c['redis']['password_file'] = f'{self.dir}/redis-password'
        for key, value in over.items():
            at = c
            *path, last = key.split('__')
            for part in path:
                at = at.setdefault(part, {})
            at[last] = value
        path = f'{self.dir}/{name}'
        open(path, 'w').write(json.dumps(c, indent=1))  # JSON is YAML
        return path

    def api(self, config, name='api', build=BUILD, env=None, port=None):
        p = Process(self, name, [f'{build}/accel-api-server', '--config', config], env)
        self.wait_ready(port)
        return p

    def wait_ready(self, port=None):
        wait_for('API server', lambda: self.http('GET', f'127.0.0.1:{port or self.api_port}', '/readyz')[0] == 200)

    def worker(self, config, name='worker', build=BUILD, env=None):
        return Process(self, name, [f'{build}/accel-worker', '--config', config], env)

    def acceld(self, config, name='acceld', build=BUILD, env=None):
        p = Process(self, name, [f'{build}/acceld', '--config', config], env)
        self.wait_ready()
        return p

    # ---- HTTP

    def http(self, method, host, path, body=None, headers=None, timeout=20):
        c = http.client.HTTPConnection(host, timeout=timeout)
        try:
            c.request(method, path, body, headers or {})
            r = c.getresponse()
            return r.status, r.read(), r.headers
        finally:
            c.close()

    def registry_headers(self):
        if not self.registry_password:
            return {}
        return {'Authorization': 'Basic ' + base64.b64encode(f'robot$accel:{self.registry_password}'.encode()).decode()}

    # ---- images

    folders = False  # layers have entries for their folders, without which podman's dialect leaves them plain

    def push_blob(self, repo, b):
        d = 'sha256:' + hashlib.sha256(b).hexdigest()
        if self.http('HEAD', self.host, f'/v2/{repo}/blobs/{d}', headers=self.registry_headers())[0] != 200:
            s, _, h = self.http('POST', self.host, f'/v2/{repo}/blobs/uploads/', headers=self.registry_headers())
            assert s == 202, s
            loc = h['Location'].split(self.host, 1)[-1]
            s, t, _ = self.http('PUT', self.host, loc + ('&' if '?' in loc else '?') + 'digest=' + d, b,
                                dict(self.registry_headers(), **{'Content-Type': 'application/octet-stream'}))
            assert s == 201, (s, t)
        return d

    def layer(self, seed, files=6, size=3000):
        """A small gzip layer, always the same for a seed."""
        rnd = random.Random(seed)
        raw = io.BytesIO()
        with tarfile.open(fileobj=raw, mode='w', format=tarfile.USTAR_FORMAT) as t:
            for i in range(min(files, 3) if self.folders else 0):
                m = tarfile.TarInfo(f'd{i}')
                m.type, m.mode, m.mtime = tarfile.DIRTYPE, 0o755, 1700000000
                t.addfile(m)
            for i in range(files):
                data = rnd.randbytes(rnd.randrange(size)) * 3
                m = tarfile.TarInfo(f'd{i % 3}/f{i}')
                m.size, m.mtime = len(data), 1700000000
                t.addfile(m, io.BytesIO(data))
        return gzip.compress(raw.getvalue(), 6, mtime=0), 'sha256:' + hashlib.sha256(raw.getvalue()).hexdigest()

    def push_image(self, repo, tag, seeds, **layer_args):
        """An image of one layer a seed; its digest."""
        layers, diff_ids = [], []
        for seed in seeds:
            b, diff = self.layer(seed, **layer_args)
            d = self.push_blob(repo, b)
            layers.append({'mediaType': 'application/vnd.oci.image.layer.v1.tar+gzip', 'digest': d, 'size': len(b)})
            diff_ids.append(diff)
        conf = json.dumps({'architecture': 'amd64', 'os': 'linux', 'config': {'Cmd': ['/bin/true']},
                           'rootfs': {'type': 'layers', 'diff_ids': diff_ids}}).encode()
        cd = self.push_blob(repo, conf)
        m = json.dumps({'schemaVersion': 2, 'mediaType': 'application/vnd.oci.image.manifest.v1+json',
                        'config': {'mediaType': 'application/vnd.oci.image.config.v1+json', 'digest': cd,
                                   'size': len(conf)}, 'layers': layers}).encode()
        return self.put_manifest(repo, tag, m)

    def put_manifest(self, repo, tag, body, media_type='application/vnd.oci.image.manifest.v1+json'):
        s, t, _ = self.http('PUT', self.host, f'/v2/{repo}/manifests/{tag}', body,
                            dict(self.registry_headers(), **{'Content-Type': media_type}))
        assert s == 201, (s, t)
        return 'sha256:' + hashlib.sha256(body).hexdigest()

    ACCEPT = ', '.join(['application/vnd.oci.image.manifest.v1+json', 'application/vnd.oci.image.index.v1+json',
                        'application/vnd.docker.distribution.manifest.v2+json',
                        'application/vnd.docker.distribution.manifest.list.v2+json'])

    def manifest(self, repo, ref):
        """Parsed, or None."""
        s, b, _ = self.http('GET', self.host, f'/v2/{repo}/manifests/{ref}',
                            headers=dict(self.registry_headers(), Accept=self.ACCEPT))
        return json.loads(b) if s == 200 else None

    def digest(self, repo, tag):
        """What a tag names, or None."""
        s, _, h = self.http('HEAD', self.host, f'/v2/{repo}/manifests/{tag}',
                            headers=dict(self.registry_headers(), Accept=self.ACCEPT))
        assert s in (200, 404), s
        return h['Docker-Content-Digest'] if s == 200 else None

    # ---- events and tasks

    def event(self, repo, tag, digest, kind='PUSH_ARTIFACT', when=None):
        name = repo.split('/', 1)[-1]
        ref = f'{self.host}/{repo}:{tag}' if tag else f'{self.host}/{repo}@{digest}'
        return {'type': kind, 'occur_at': int(when or time.time()), 'operator': 'robot$ci',
                'event_data': {'resources': [{'digest': digest, 'tag': tag or digest, 'resource_url': ref}],
                               'repository': {'name': name, 'namespace': repo.split('/')[0], 'repo_full_name': repo,
                                              'repo_type': 'private'}}}

    def post(self, body, port=None, sync=False, headers=None, timeout=120):
        """(status, text, task ids)"""
        h = {'Content-Type': 'application/json', 'Authorization': self.auth_header}
        h.update(headers or {})
        if not isinstance(body, (bytes, str)):
            body = json.dumps(body)
        s, b, r = self.http('POST', f'127.0.0.1:{port or self.api_port}',
                            '/api/v1/conversions' + ('?sync=true' if sync else ''), body, h, timeout)
        ids = r['X-Accel-Task-Id']
        return s, b.decode(errors='replace'), [x.strip() for x in ids.split(',')] if ids else []

    def push_and_post(self, repo, tag, seeds, **k):
        d = self.push_image(repo, tag, seeds)
        s, t, ids = self.post(self.event(repo, tag, d), **k)
        assert s == 200, (s, t)
        return d, ids[0] if ids else None

    def task(self, id, port=None):
        s, b, _ = self.http('GET', f'127.0.0.1:{port or self.api_port}', f'/api/v1/conversions/{id}')
        return json.loads(b) if s == 200 else None

    def tasks(self, port=None):
        s, b, _ = self.http('GET', f'127.0.0.1:{port or self.api_port}', '/api/v1/conversions')
        assert s == 200, (s, b)
        return json.loads(b)

    def wait_task(self, id, seconds=60, phases=None, port=None):
        """Until it ended (or is in one of phases)."""
        def ended():
            t = self.task(id, port)
            if t and (t['phase'] in phases if phases else t['status'] != 'PROCESSING'):
                return t
        return wait_for(f'task {id}', ended, seconds)
