"""Reads Nydus blobs and bootstraps as their readers do, written from the format's description: nothing is shared with our
programs.  Blobs become flat devices (each chunk at its unpacked place), which the kernel's EROFS and fsck.erofs take."""
import ctypes, ctypes.util, hashlib, os, struct, subprocess

zstd = ctypes.CDLL(ctypes.util.find_library('zstd') or 'libzstd.so.1')
zstd.ZSTD_decompress.restype = ctypes.c_size_t
zstd.ZSTD_decompress.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t]
lz4 = ctypes.CDLL(ctypes.util.find_library('lz4') or 'liblz4.so.1')
libz = ctypes.CDLL(ctypes.util.find_library('z') or 'libz.so.1')


def unzstd(data, size):
    out = ctypes.create_string_buffer(max(size, 1))
    n = zstd.ZSTD_decompress(out, size, data, len(data))
    assert n == size, 'zstd gives %d of %d bytes' % (n, size)
    return out.raw[:size]


def unlz4(data, size):
    out = ctypes.create_string_buffer(max(size, 1))
    n = lz4.LZ4_decompress_safe(data, out, len(data), size)
    assert n == size, 'lz4 gives %d of %d bytes' % (n, size)
    return out.raw[:size]


UNPACK = {0: None, 1: unlz4, 3: unzstd}
NAMES = {'none': 0, 'lz4_block': 1, 'zstd': 3}


# ---- restarting inflate in the middle of a gzip layer

class Stream(ctypes.Structure):
    _fields_ = [('next_in', ctypes.c_void_p), ('avail_in', ctypes.c_uint), ('total_in', ctypes.c_ulong),
                ('next_out', ctypes.c_void_p), ('avail_out', ctypes.c_uint), ('total_out', ctypes.c_ulong),
                ('msg', ctypes.c_char_p), ('state', ctypes.c_void_p), ('zalloc', ctypes.c_void_p), ('zfree', ctypes.c_void_p),
                ('opaque', ctypes.c_void_p), ('data_type', ctypes.c_int), ('adler', ctypes.c_ulong), ('reserved', ctypes.c_ulong)]


def gzip_header(b, at):
    """Where the deflate data of the member at `at` begin."""
    assert b[at:at + 3] == b'\x1f\x8b\x08', 'no gzip member where one has to begin'
    flags, at = b[at + 3], at + 10
    if flags & 4:
        at += 2 + struct.unpack_from('<H', b, at)[0]
    for bit in (8, 16):
        if flags & bit:
            at = b.index(b'\0', at) + 1
    return at + (2 if flags & 2 else 0)


def inflate_at(gz, c_in, in_len, out_len, window, byte, bits):
    """out_len bytes from a context on, over the ends of members, as nydusd does it."""
    piece = gz[c_in:c_in + in_len]
    assert len(piece) == in_len, 'a context ends behind the layer'
    source, out, z, at = ctypes.create_string_buffer(piece, in_len or 1), ctypes.create_string_buffer(out_len or 1), Stream(), 0
    assert libz.inflateInit2_(ctypes.byref(z), -15, b'1', ctypes.sizeof(Stream)) == 0
    try:
        if bits:
            assert libz.inflatePrime(ctypes.byref(z), bits, byte >> (8 - bits)) == 0
        if window:
            assert libz.inflateSetDictionary(ctypes.byref(z), window, len(window)) == 0
        z.next_out, z.avail_out = ctypes.addressof(out), out_len
        while z.avail_out:
            z.next_in, z.avail_in = ctypes.addressof(source) + at, in_len - at
            r = libz.inflate(ctypes.byref(z), 0)
            at = in_len - z.avail_in
            assert r in (0, 1), 'inflate gives %d, %d bytes are missing' % (r, z.avail_out)
            if r == 1 and z.avail_out:
                at = gzip_header(piece, at + 8)
                assert libz.inflateReset(ctypes.byref(z)) == 0
    finally:
        libz.inflateEnd(ctypes.byref(z))
    return out.raw[:out_len]


# ---- blobs to flat devices: the reader's side of the format, from its description

def toc(blob):
    size = int(blob[-512:][124:135], 8)
    at, found = len(blob) - 512 - size, {}
    for i in range(at, at + size, 128):
        flags, _ = struct.unpack_from('<II', blob, i)
        name = blob[i + 8:i + 24].rstrip(b'\0').decode()
        offset, stored, unpacked = struct.unpack_from('<QQQ', blob, i + 56)
        found[name] = (flags, offset, stored, unpacked, blob[i + 24:i + 56])
    return found


def section(blob, name):
    flags, offset, stored, unpacked, digest = toc(blob)[name]
    data = blob[offset:offset + stored]
    data = unzstd(data, unpacked) if flags == 2 else data
    assert hashlib.sha256(data).digest() == digest, name + ' is not what its digest says'
    return data


def chunk_infos(blob, sections):
    """(chunk infos, features, number of chunks, where contexts begin, their number)"""
    flags, offset, stored, unpacked, digest = sections['blob.meta']
    infos = blob[offset:offset + stored]
    if flags == 2:
        infos = unzstd(infos, unpacked)
    assert hashlib.sha256(infos).digest() == digest, 'blob.meta is not what its digest says'
    header = sections['blob.meta.header'][1]
    magic, features, _, count = struct.unpack_from('<IIII', blob, header)
    assert magic == 0xb10bb10b
    return infos, features, count, *struct.unpack_from('<Q', blob, header + 40), *struct.unpack_from('<I', blob, header + 56)


def flat_device(blob, compressor, path, layer=None):
    """compressor: its number or name; layer: the gzip layer that an index (oci_ref) refers to."""
    sections, last = toc(blob), (None, b'')
    if 'blob.meta' not in sections:
        return
    infos, features, count, contexts_at, contexts = chunk_infos(blob, sections)
    digests = blob[sections['blob.digest'][1]:][:sections['blob.digest'][2]]
    assert len(digests) == 32 * count
    unpack = UNPACK.get(NAMES.get(compressor, compressor))
    with open(path, 'wb') as f:
        end = 0
        for i in range(count):
            if features & 4:
                a, b, c = struct.unpack_from('<QQQ', infos, 24 * i)
                uoff, usize, fl = (a & 0xffffffff) << 12, (a >> 32 & 0xffffff) + 1, a >> 56
                coff, csize = b & 0xffffffffff, b >> 40
                if fl & 2:
                    n, within = c >> 32, c & 0xffffffff
                    if last[0] != n:
                        c_in, _, at, in_len, out_len, dict_len, byte, bits = struct.unpack_from(
                            '<QQQIIIBB', infos, contexts_at + 40 * n)
                        at += contexts_at + 40 * contexts
                        assert n < contexts and at + dict_len <= len(infos)
                        last = n, inflate_at(layer, c_in, in_len, out_len, infos[at:at + dict_len], byte, bits)
                    data = last[1][within:within + usize]
                    assert hashlib.sha256(data).digest() == digests[32 * i:32 * i + 32], 'digest of chunk %d' % i
                elif fl & 4:
                    bs, bu = struct.unpack_from('<II', infos, contexts_at + 40 * (c >> 32))
                    raw = blob[coff:coff + bs]
                    raw = raw if bs == bu else unpack(raw, bu)
                    data = raw[c & 0xffffffff:(c & 0xffffffff) + usize]
                else:
                    raw = blob[coff:coff + csize]
                    data = unpack(raw, usize) if fl & 1 else raw
            else:
                a, b = struct.unpack_from('<QQ', infos, 16 * i)
                uoff, usize = a & 0xffffffff000, (a >> 44 | (a >> 8 & 15) << 20) + 1
                coff, csize = b & 0xffffffffff, (b >> 44 | (b >> 40 & 15) << 20) + 1
                raw = blob[coff:coff + csize]
                data = raw if csize == usize else unpack(raw, usize)
            assert uoff == end and len(data) == usize, 'chunk %d' % i
            f.seek(uoff)
            f.write(data)
            end = uoff + usize + 4095 & ~4095
        f.truncate(end)


def devices_of(boot):
    n, = struct.unpack_from('<H', boot, 1024 + 86)
    return [boot[1408 + 128 * i:1408 + 128 * i + 64].decode() for i in range(n)]


def blobs_of(boot):
    """The blob table: (id, compressor, the index blob's digest or zeros), in order."""
    at, n = struct.unpack_from('<QI', boot, 1152 + 8)
    rows = [boot[at + i:at + i + 256] for i in range(0, n, 256)]
    return [(r[:64].decode(), struct.unpack_from('<I', r, 76)[0], r[168:200].hex()) for r in rows]


def run(*cmd, **kw):
    return subprocess.run(cmd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **kw)


def kernel_mount(tmp, boot, devs, look, problems):
    """Calls look(folder) while the kernel has it mounted.  '' or why this machine cannot."""
    if os.geteuid() != 0:
        return 'not root'
    loops, mnt = [], os.path.join(tmp, 'mnt')
    os.mkdir(mnt)
    try:
        for f in [boot] + devs:
            r = run('losetup', '-f', '--show', '-r', f)
            if r.returncode:
                return 'no loop device: ' + r.stderr.decode().strip()
            loops.append(r.stdout.decode().strip())
        r = run('mount', '-t', 'erofs', '-o', ','.join(['ro'] + ['device=' + d for d in loops[1:]]), loops[0], mnt)
        if r.returncode:
            if b'unknown filesystem' in r.stderr or b'permission denied' in r.stderr.lower():
                return r.stderr.decode().strip()
            problems.append('kernel: mount: ' + r.stderr.decode().strip())
            return ''
        try:
            look(mnt)
        finally:
            run('umount', mnt)
        return ''
    finally:
        for l in loops:
            run('losetup', '-d', l)
        os.rmdir(mnt)


def fsck(boot, devs, problems):
    p = run('fsck.erofs', *['--device=' + d for d in devs], boot)
    if p.returncode:
        problems.append('fsck.erofs: ' + p.stdout.decode(errors='replace').strip()[-300:])


def extract(boot, devs, out, problems):
    """Whether fsck.erofs could."""
    p = run('fsck.erofs', '--extract=' + out, '--overwrite', *['--device=' + d for d in devs], boot)
    if p.returncode:
        problems.append('fsck.erofs --extract: ' + (p.stdout + p.stderr).decode(errors='replace').strip()[-300:])
    return not p.returncode
