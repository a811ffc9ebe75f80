"""A TCP port of 127.0.0.1 that nobody has, for a server that is started in a moment."""
import random, socket

_given = set()


def free_port():
    """Below those that the kernel gives to connections: one of them could take it before our server does."""
    with open('/proc/sys/net/ipv4/ip_local_port_range') as f:
        low = int(f.read().split()[0])
    below = range(low - 12000, low) if low > 14000 else range(61001, 65000)
    while True:
        port = random.SystemRandom().choice(below)
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind(('127.0.0.1', port))
            except OSError:
                continue
        if port not in _given:
            _given.add(port)
            return port
