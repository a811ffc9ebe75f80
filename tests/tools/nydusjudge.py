"""Judges a converted Nydus image in a registry: pulls bootstrap and blobs, makes the flat devices, has the kernel's EROFS mount
them and fsck.erofs extract them, and compares with an overlay of the source's layers (treecmp.py).  None of our code reads."""
import io, os, shutil, stat, struct, tarfile

from lab import *
from nydusread import *

BLOB = 'application/vnd.oci.image.layer.nydus.blob.v1'
ATTRIBUTE = 'containerd.io/snapshot/nydus-'


def platforms(host, repo, tag):
    """[(os/architecture, its manifest)]; attestations are none."""
    top, _ = manifest(host, repo, tag)
    if 'layers' in top:
        c = json.loads(blob(host, repo, top['config']['digest']))
        return [(f"{c['os']}/{c['architecture']}", top)]
    return [(f"{x['platform']['os']}/{x['platform']['architecture']}", manifest(host, repo, x['digest'])[0])
            for x in top['manifests'] if x.get('platform', {}).get('os') not in (None, 'unknown')]


def same_trees(mnt, out, problems, most=20):
    """What fsck.erofs extracted against the kernel's view.  It sets the owner last, which takes setuid away, and no
    attributes, no times of anything but files."""
    seen = 0
    for base, dirs, files in os.walk(os.fsencode(mnt)):
        other = os.fsencode(out) + base[len(os.fsencode(mnt)):]
        names = sorted(dirs + files)
        if sorted(os.listdir(other)) != names:
            problems.append(f'extracted: {other!r} lists other names')
        for name in names:
            seen += 1
            a, b = os.path.join(base, name), os.path.join(other, name)
            try:
                s, t = os.lstat(a), os.lstat(b)
            except FileNotFoundError:
                continue
            same = stat.S_IFMT(s.st_mode) == stat.S_IFMT(t.st_mode) and (s.st_uid, s.st_gid) == (t.st_uid, t.st_gid)
            if stat.S_ISLNK(s.st_mode):
                same = same and os.readlink(a) == os.readlink(b)
            else:
                same = same and s.st_mode & 0o1777 == t.st_mode & 0o1777 and s.st_rdev == t.st_rdev
            if stat.S_ISREG(s.st_mode) and same:
                same = s.st_size == t.st_size and int(s.st_mtime) == int(t.st_mtime)
                with open(a, 'rb') as f, open(b, 'rb') as g:
                    while same and (x := f.read(1 << 20)):
                        same = x == g.read(1 << 20)
            if not same:
                problems.append(f'extracted: {a!r} is not the same')
            if len(problems) > most:
                return seen
    return seen


def pull(host, repo, m, tmp):
    """The bootstrap's file and those of its devices, in order."""
    last = m['layers'][-1]
    assert last['annotations'][ATTRIBUTE + 'bootstrap'] == 'true'
    with tarfile.open(fileobj=io.BytesIO(unpack(blob(host, repo, last['digest'])))) as t:
        boot = t.extractfile('image/image.boot').read()
        kept = {x.name: t.extractfile(x).read() for x in t.getmembers() if x.name.endswith('.blob.meta')}
    layers = {x['digest'][7:]: x for x in m['layers'][:-1]}
    assert all(x['mediaType'] == BLOB and x['annotations'][ATTRIBUTE + 'blob'] == 'true' for x in layers.values())
    path, devices = os.path.join(tmp, 'image.boot'), []
    with open(path, 'wb') as f:
        f.write(boot)
    for name, compressor, index in blobs_of(boot):
        source = None
        if set(index) != {'0'}:  # the chunks are in the source's own layer, an index of them is a layer here
            source = blob(host, repo, f'sha256:{name}')
            assert layers[index]['annotations'][ATTRIBUTE + 'ref'] == f'sha256:{name}'
        digest = index if source else name
        b = blob(host, repo, 'sha256:' + digest)
        assert len(b) == layers[digest]['size'] and hashlib.sha256(b).hexdigest() == digest
        assert f'image/{digest}.blob.meta' in kept, 'no blob.meta of ' + digest
        devices.append(os.path.join(tmp, f'{name}.dev'))
        flat_device(b, compressor, devices[-1], source)
    return path, devices


def judge(host, repo, source, platform, m, tmp):
    """(problems, why there was no kernel mount or '', paths seen)"""
    problems, seen = [], [0]
    tmp = os.path.join(tmp, 'judge')
    os.mkdir(tmp)
    try:
        boot, devices = pull(host, repo, m, tmp)
        out = os.path.join(tmp, 'out')
        os.mkdir(out)
        fsck(boot, devices, problems)
        extracted = extract(boot, devices, out, problems)

        def look(mnt):
            r = run(sys.executable, os.path.join(TOP, 'tests/tools/treecmp.py'), 'compare', '--platform', platform, '--mtime', 'floor',
                    f'image:{host}/{repo}:{source}', mnt)
            if r.returncode:
                problems.extend((r.stdout + r.stderr).decode(errors='replace').splitlines()[:20])
            if extracted:
                seen[0] = same_trees(mnt, out, problems)

        return problems, kernel_mount(tmp, boot, devices, look, problems), seen[0]
    except (AssertionError, KeyError, ValueError, struct.error) as e:
        return problems + [f'cannot be read: {type(e).__name__} {e}'], '', 0
    finally:
        shutil.rmtree(tmp, ignore_errors=True)
