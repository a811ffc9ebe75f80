/* common/httpd_listen.c - listening on TCP, TLS and unix sockets, and what is looked at before a
 * connection may speak: how many there are, in all and of its address, and who it is. */
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <event2/bufferevent.h>
#include <event2/bufferevent_ssl.h>
#include <event2/event.h>
#include <event2/listener.h>
#include <event2/util.h>

#include "common/err.h"
#include "common/httpd_impl.h"
#include "common/mem.h"
#include "common/scope.h"
#include "common/str.h"
#include "common/tls.h"

enum { BACKLOG = 1024 };

/* ---- accepting */

static void name_peer(struct conn *c, const struct sockaddr *a)
{
	char text[INET6_ADDRSTRLEN] = "";

	if (a->sa_family == AF_INET) {
		const struct sockaddr_in *in = (const struct sockaddr_in *)a;

		inet_ntop(AF_INET, &in->sin_addr, text, sizeof(text));
		snprintf(c->name, sizeof(c->name), "%s:%u", text, ntohs(in->sin_port));
		c->loopback = ntohl(in->sin_addr.s_addr) >> 24 == 127;
	} else if (a->sa_family == AF_INET6) {
		const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)a;
		bool mapped = IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr);

		if (mapped)
			inet_ntop(AF_INET, in6->sin6_addr.s6_addr + 12, text, sizeof(text));
		else
			inet_ntop(AF_INET6, &in6->sin6_addr, text, sizeof(text));
		snprintf(c->name, sizeof(c->name), mapped ? "%s:%u" : "[%s]:%u", text,
			 ntohs(in6->sin6_port));
		c->loopback = IN6_IS_ADDR_LOOPBACK(&in6->sin6_addr) ||
			      (mapped && in6->sin6_addr.s6_addr[12] == 127);
	} else {
		struct ucred cred;
		socklen_t n = sizeof(cred);

		str_copy(c->name, sizeof(c->name), "unix");
		c->is_unix = true;
		c->uid = (uid_t)-1;
		if (getsockopt(bufferevent_getfd(c->bev), SOL_SOCKET, SO_PEERCRED, &cred, &n) == 0)
			c->uid = cred.uid;
	}
}

/* false: this address has its share of connections. */
static bool peer_count(struct conn *c)
{
	char address[INET6_ADDRSTRLEN + 16];
	uint32_t hash = 2166136261u;
	struct peer *p;
	char *colon;

	if (!c->h->o.max_per_peer || c->is_unix)
		return true;
	str_copy(address, sizeof(address), c->name);
	colon = strrchr(address, ':');
	if (colon)
		*colon = 0;
	for (const char *s = address; *s; s++)
		hash = (hash ^ (unsigned char)*s) * 16777619u;
	LIST_FOREACH(p, &c->h->peers[hash % PEER_BUCKETS], next)
	if (!strcmp(p->address, address))
		break;
	if (p && p->n >= c->h->o.max_per_peer)
		return false;
	if (!p) {
		p = mem_zalloc(sizeof(*p));
		str_copy(p->address, sizeof(p->address), address);
		LIST_INSERT_HEAD(&c->h->peers[hash % PEER_BUCKETS], p, next);
	}
	p->n++;
	c->peer = p;
	return true;
}

/* Makes room by closing the connection that has been idle longest. */
static bool evict(struct httpd *h)
{
	struct conn *c;

	TAILQ_FOREACH(c, &h->conns, next)
	if (c->phase == IDLE && !c->running) {
		conn_free(c);
		return true;
	}
	return false;
}

static struct bufferevent *bufferevent_for(struct listener *s, int fd)
{
	struct bufferevent *bev;
	struct ssl_st *ssl = NULL;

	if (!s->tls)
		return bufferevent_socket_new(s->h->base, fd, BEV_OPT_CLOSE_ON_FREE);
	if (tls_server_new(&ssl, s->tls, NULL) < 0)
		return NULL;
	bev = bufferevent_openssl_socket_new(s->h->base, fd, ssl, BUFFEREVENT_SSL_ACCEPTING,
					     BEV_OPT_CLOSE_ON_FREE);
	if (!bev)
		tls_freep(&ssl);
	else
		bufferevent_openssl_set_allow_dirty_shutdown(bev, 1);
	return bev;
}

static void on_accept(struct evconnlistener *ev, evutil_socket_t fd, struct sockaddr *a, int n,
		      void *arg)
{
	struct listener *s = arg;
	struct httpd *h = s->h;
	struct bufferevent *bev;
	struct conn *c;
	int one = 1;

	(void)ev;
	(void)n;
	bev = h->n_conns < h->o.max_connections || evict(h) ? bufferevent_for(s, fd) : NULL;
	if (!bev) {
		close(fd);
		return;
	}
	c = conn_new(h, bev, s->tls != NULL);
	name_peer(c, a);
	if (!c->is_unix)
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (c->handshake)
		conn_deadline(c, READING_HEAD, h->o.header_ms);
	else
		conn_deadline(c, IDLE, h->o.idle_ms);
	bufferevent_enable(bev, EV_READ | EV_WRITE);
	if (peer_count(c))
		return;
	if (c->handshake)
		conn_free(c);
	else
		conn_refuse(c, 429, "too many connections from this address");
}

void listener_again(evutil_socket_t fd, short what, void *arg)
{
	struct httpd *h = arg;
	struct listener *s;

	(void)fd;
	(void)what;
	TAILQ_FOREACH(s, &h->listeners, next)
	evconnlistener_enable(s->ev);
}

/* Out of descriptors: make room, and do not spin on the backlog. */
static void on_accept_error(struct evconnlistener *ev, void *arg)
{
	struct listener *s = arg;
	struct timeval tv = {.tv_usec = 100000};

	if (evict(s->h))
		return;
	evconnlistener_disable(ev);
	event_add(s->h->again, &tv);
}

void listener_free(struct listener *s)
{
	struct stat st;

	TAILQ_REMOVE(&s->h->listeners, s, next);
	if (s->ev)
		evconnlistener_free(s->ev);
	if (s->path && lstat(s->path, &st) == 0 && st.st_dev == s->dev && st.st_ino == s->ino)
		unlink(s->path);
	tls_context_freep(&s->tls);
	free(s->cert);
	free(s->key);
	free(s->client_ca);
	free(s->path);
	free(s);
}

static struct listener *listener_new(struct httpd *h)
{
	struct listener *s = mem_zalloc(sizeof(*s));

	s->h = h;
	TAILQ_INSERT_TAIL(&h->listeners, s, next);
	return s;
}

/* Takes fd. */
static void listener_start(struct listener *s, int *fd)
{
	evutil_make_socket_nonblocking(*fd);
	s->ev = evconnlistener_new(s->h->base, on_accept, s,
				   LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC, BACKLOG, *fd);
	if (!s->ev)
		abort();
	take_fd(fd);
	evconnlistener_set_error_cb(s->ev, on_accept_error);
}

static int bind_tcp(const struct addrinfo *a, struct err *e)
{
	int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1, off = 0;

	if (fd < 0)
		return err_errno(e, errno, "make a socket");
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (a->ai_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
	if (bind(fd, a->ai_addr, a->ai_addrlen) < 0 || listen(fd, BACKLOG) < 0) {
		err_errno(e, errno, "bind");
		close(fd);
		return -1;
	}
	return fd;
}

static char *bound_text(int fd)
{
	struct sockaddr_storage a = {0};
	socklen_t n = sizeof(a);
	char host[INET6_ADDRSTRLEN] = "", port[8] = "";

	getsockname(fd, (struct sockaddr *)&a, &n);
	getnameinfo((struct sockaddr *)&a, n, host, sizeof(host), port, sizeof(port),
		    NI_NUMERICHOST | NI_NUMERICSERV);
	return mem_printf(a.ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
}

/* A name gives its IPv4 address when it has one, as Go's net.Listen does. */
static int bind_host(const char *host, uint16_t port, struct err *e)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
	struct addrinfo *all = NULL, *best;
	char text[8], bare[256];
	int fd, r;

	str_copy(bare, sizeof(bare), host);
	if (bare[0] == '[' && str_ends(bare, "]")) {
		memmove(bare, bare + 1, strlen(bare));
		bare[strlen(bare) - 1] = 0;
	}
	snprintf(text, sizeof(text), "%u", port);
	r = getaddrinfo(bare[0] ? bare : "0.0.0.0", text, &hints, &all);
	if (r != 0)
		return err_set(e, ERR_INVALID, "%s", gai_strerror(r));
	for (best = all; best && best->ai_family != AF_INET;)
		best = best->ai_next;
	fd = bind_tcp(best ? best : all, e);
	freeaddrinfo(all);
	return fd;
}

int httpd_listen_tcp(struct httpd *h, const char *host, uint16_t port, const char *tls_cert,
		     const char *tls_key, const char *tls_client_ca, char **bound, struct err *e)
{
	scoped_fd int fd = -1;
	struct ssl_ctx_st *tls = NULL;
	struct listener *s;

	if (tls_cert && tls_server_context(&tls, tls_cert, tls_key, tls_client_ca, e) < 0)
		return -1;
	fd = bind_host(host, port, e);
	if (fd < 0) {
		tls_context_freep(&tls);
		return err_wrap(e,
				strchr(host, ':') && *host != '[' ? "listen on [%s]:%u"
								  : "listen on %s:%u",
				host, port);
	}
	s = listener_new(h);
	s->tls = tls;
	s->cert = mem_strdup(tls_cert);
	s->key = mem_strdup(tls_key);
	s->client_ca = mem_strdup(tls_client_ca);
	if (bound)
		*bound = bound_text(fd);
	listener_start(s, &fd);
	return 0;
}

/* Is there a socket at path that nobody listens on any more?  1: remove it, 0: nothing there. */
static int unix_stale(const char *path, const struct sockaddr_un *a, struct err *e)
{
	scoped_fd int fd = -1;
	struct stat st;

	if (lstat(path, &st) < 0)
		return errno == ENOENT ? 0 : err_errno(e, errno, "look");
	if (!S_ISSOCK(st.st_mode))
		return err_set(e, ERR_INVALID, "there is a file that is no socket");
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_errno(e, errno, "make a socket");
	if (connect(fd, (const struct sockaddr *)a, sizeof(*a)) == 0 || errno == EAGAIN)
		return err_set(e, ERR_INVALID, "another program listens there");
	return 1;
}

static int bind_unix(const char *path, uint32_t mode, struct err *e)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	scoped_fd int fd = -1;
	mode_t mask;
	int r;

	if (strlen(path) >= sizeof(a.sun_path))
		return err_set(e, ERR_INVALID, "the path is longer than %zu bytes",
			       sizeof(a.sun_path) - 1);
	strcpy(a.sun_path, path);
	r = unix_stale(path, &a, e);
	if (r < 0)
		return -1;
	if (r > 0)
		unlink(path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return err_errno(e, errno, "make a socket");
	mask = umask(0177); /* never more open than asked for, not even for a moment */
	r = bind(fd, (struct sockaddr *)&a, sizeof(a));
	umask(mask);
	if (r < 0)
		return err_errno(e, errno, "bind");
	if (chmod(path, mode) < 0 || listen(fd, BACKLOG) < 0)
		return err_errno(e, errno, "listen");
	return take_fd(&fd);
}

int httpd_listen_unix(struct httpd *h, const char *path, uint32_t mode, struct err *e)
{
	scoped_fd int fd = bind_unix(path, mode, e);
	struct listener *s;
	struct stat st = {0};

	if (fd < 0)
		return err_wrap(e, "listen on unix socket %s", path);
	s = listener_new(h);
	s->path = mem_strdup(path);
	if (lstat(path, &st) == 0) {
		s->dev = st.st_dev;
		s->ino = st.st_ino;
	}
	listener_start(s, &fd);
	return 0;
}

int httpd_reload_tls(struct httpd *h, struct err *e)
{
	struct listener *s;
	struct ssl_ctx_st *tls = NULL;

	TAILQ_FOREACH(s, &h->listeners, next)
	{ /* first all, so that none is half done */
		if (!s->cert)
			continue;
		if (tls_server_context(&tls, s->cert, s->key, s->client_ca, e) < 0)
			return -1;
		tls_context_freep(&tls);
	}
	TAILQ_FOREACH(s, &h->listeners, next)
	{
		if (!s->cert || tls_server_context(&tls, s->cert, s->key, s->client_ca, e) < 0)
			continue;
		tls_context_freep(&s->tls);
		s->tls = take_ptr(tls);
	}
	return 0;
}
