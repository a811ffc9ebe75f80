#!/usr/bin/env bash
# Enforces the arrows between rooms and who may include which library's header; finds cycles.
# scripts/check-includes.sh           check the tree
# scripts/check-includes.sh graph     print the modules' graph as it is
#
# An arrow A -> B allows B to include A; what A may use, B may use too (arrows are followed).  A module is a header and
# its .c file of one name; a folder below worker/ is one module.
set -euo pipefail
cd "$(dirname "$0")/.."
exec python3 - "${1:-check}" <<'PY'
import os, re, subprocess, sys

ARROWS = """
err mem scope le env fault -> buf str clock log metrics
buf -> str
str -> clock
str clock buf log metrics -> digest secret json stream imageref
digest -> stream imageref
secret digest json stream imageref -> target rules config
secret json -> storage
storage platform -> target
target json -> target_tag target_json target_hash
target_tag target_json target_hash -> rules
target_tag -> target_json target_hash
rules target_tag target_json -> config
config -> startup
config log -> loop tls
loop tls -> httpd resp
str -> reply
reply -> resp
buf -> httpframe
httpframe json -> httpd
loop -> notify
resp config scripts -> redis
target_json target_tag rules json clock -> task
reply task -> queue_view
reply redis -> queue_events
queue_view queue_events redis task target_hash target_tag -> queue
str -> url http_message network
address url http_message network -> xfer
xfer stream -> http
stream -> codec tar
codec digest stream rafs_blake3 -> pool
codec digest -> out
pool -> out
json digest -> oci
http oci config -> registry
blob_at out codec tar oci rafs_blake3 -> rafs
blob_at out http target storage secret -> backend
backend -> convert verify taskproc accelctl
blob_at oci tar out codec rafs target -> drivers
drivers registry -> blobat
tar -> limits
digest tar -> listing
registry drivers pool out codec tar config limits -> cache layer
registry oci config rules -> classify
cache -> layer
classify registry target limits -> resolve
resolve listing blobat drivers -> verify
oci registry -> publish
resolve rafs -> verify
cache registry json -> cachetag
registry drivers oci config -> dictionary
layer cache cachetag dictionary classify resolve publish verify rules blobat limits -> convert
config -> limits sandbox
json -> packet
convert limits sandbox startup task packet -> taskproc
packet loop queue -> slots
slots queue redis config -> asks
slots config json secret -> startpacket
metrics json queue -> workermetrics
asks slots startpacket workermetrics queue loop httpd startup pool -> supervisor
supervisor taskproc startup notify -> worker_main
queue httpd startup notify -> api
convert registry oci drivers http config startup blobat rafs -> accelctl
config loop startup notify -> acceld
"""
LIBRARIES = {  # header pattern -> the files that may include it
    r'event2?/|^event\.h|^evhttp': ['common/loop.c', 'common/httpd.c', 'common/httpd_impl.h', 'common/httpd_conn.c',
                                          'common/httpd_listen.c', 'common/resp.c', 'common/tls.c'],
    r'^openssl/': ['common/digest.c', 'common/secret.c', 'common/tls.c', 'common/tls.h', 'common/httpd.c', 'common/resp.c'],
    r'^curl/': ['common/url.c', 'common/network.h', 'common/network.c', 'common/xfer.c'],
    r'^hiredis': ['common/resp.c'],
    r'^json-c|^json\.h': ['common/json.c'],
    r'^yaml\.h': ['common/config.c'],
    r'^zlib\.h|^isa-l|^igzip': ['worker/codec/inflate.c', 'worker/codec/blocks.c', 'worker/codec/member.c', 'worker/codec/crc64.c'],
    r'^libdeflate\.h': ['worker/codec/deflate.c'],
    r'^zstd': ['worker/codec/zstd.c', 'worker/codec/member.c'],
    r'^lz4': ['worker/codec/lz4.c'],
}
FORBIDDEN = [r'\bsystem\s*\(', r'\bpopen\s*\(', r'archive\.h', r'\bmemfd_create\b', r'\btmpfile\b', r'\bmkstemp\b']

def module(path):
    parts = path.split('/')
    stem = re.sub(r'\.[ch]$', '', parts[-1])
    if parts[0] == 'common':
        return {'driver_options': 'target', 'stream_impl': 'stream', 'httpd_impl': 'httpd', 'httpd_conn': 'httpd', 'httpd_listen': 'httpd', 'config_impl': 'config', 'settings': 'config',
                'settings_impl': 'config', 'settings_keys': 'config', 'settings_rules': 'config', 'settings_write': 'config'}.get(stem, stem)
    if parts[0] == 'worker':
        if len(parts) > 2:
            return 'rafs_blake3' if parts[1] == 'rafs' and stem.startswith('blake3') else parts[1]
        return {'main': 'worker_main', 'probes': 'supervisor'}.get(stem, stem)
    return {'api-server': 'api'}.get(parts[0], parts[0])

files = [f for f in subprocess.check_output(['git', 'ls-files', '-co', '--exclude-standard'], text=True).split()
         if re.match(r'(common|worker|api-server|accelctl|acceld)/.*\.[ch]$', f) and os.path.exists(f)]
edges, bad = {}, []
for f in files:
    text = open(f, encoding='utf-8', errors='replace').read()
    code = re.sub(r'/\*.*?\*/|"(\\.|[^"\\])*"', lambda m: '""' if m.group(0)[0] == '"' else '', text, flags=re.S)
    for p in FORBIDDEN:
        if re.search(p, code):
            bad.append(f'{f}: uses what no program here may use: {p}')
    for kind, name in re.findall(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', text, flags=re.M):
        if kind == '<':
            for p, may in LIBRARIES.items():
                if re.search(p, name) and f not in may:
                    bad.append(f'{f}: includes <{name}>; only {", ".join(may)} may')
            continue
        if not os.path.exists(name):
            bad.append(f'{f}: "{name}" is not a path from the top of the tree')
            continue
        a, b = module(name), module(f)
        if a != b:
            edges.setdefault(b, {}).setdefault(a, f)

if sys.argv[1] == 'graph':
    for b in sorted(edges):
        print(f'{b}: {" ".join(sorted(edges[b]))}')
    sys.exit(0)

allowed = {}
for line in ARROWS.strip().splitlines():
    left, right = line.split('->')
    for b in right.split():
        allowed.setdefault(b, set()).update(left.split())
base = 'err mem scope str le clock env fault buf log'.split()

def reach(b, seen=None):
    seen = set() if seen is None else seen
    for a in allowed.get(b, ()):
        if a not in seen:
            seen.add(a)
            reach(a, seen)
    return seen

for b in sorted(edges):
    may = reach(b) | set(base)
    for a, f in sorted(edges[b].items()):
        if a not in may:
            bad.append(f'{f}: {b} includes {a}, which no path of arrows allows')

# a cycle between modules, whatever the arrows say
state = {}
def visit(m, path):
    state[m] = 1
    for a in sorted(edges.get(m, ())):
        if state.get(a) == 1:
            bad.append('cycle: ' + ' -> '.join(path[path.index(a):] + [a] if a in path else path + [a]))
        elif a not in state:
            visit(a, path + [a])
    state[m] = 2
for m in sorted(edges):
    if m not in state:
        visit(m, [m])

for b in bad:
    print(b)
print(f'includes: {len(files)} files, {len(edges)} modules, {len(bad)} problems')
sys.exit(1 if bad else 0)
PY
