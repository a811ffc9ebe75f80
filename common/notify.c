/* common/notify.c - see notify.h. */
#include "common/notify.h"

#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/env.h"
#include "common/loop.h"
#include "common/scope.h"
#include "common/str.h"

/* A lost message is not our failure: systemd then reports a start that timed out, or restarts us.
 */
static void tell(const char *text)
{
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	const char *path = env_get("NOTIFY_SOCKET");
	scoped_fd int fd = -1;
	size_t n;

	if (!path || (path[0] != '/' && path[0] != '@'))
		return;
	n = strlen(path);
	if (n < 2 || n >= sizeof(to.sun_path))
		return;
	memcpy(to.sun_path, path, n);
	if (path[0] == '@')
		to.sun_path[0] = 0; /* the abstract namespace */
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd >= 0)
		(void)!sendto(fd, text, strlen(text), MSG_NOSIGNAL, (struct sockaddr *)&to,
			      (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n));
}

void notify_ready(void)
{
	tell("READY=1");
}

void notify_stopping(void)
{
	tell("STOPPING=1");
}

static void ping(void *arg)
{
	tell("WATCHDOG=1");
}

struct loop_timer *notify_watchdog(struct loop *l)
{
	const char *usec = env_get("WATCHDOG_USEC"), *pid = env_get("WATCHDOG_PID");
	uint64_t us, whose;

	if (!usec || str_u64(usec, &us, NULL) < 0 || us < 4000)
		return NULL;
	if (pid && (str_u64(pid, &whose, NULL) < 0 || whose != (uint64_t)getpid()))
		return NULL; /* meant for our parent */
	return loop_timer(l, us / 2000, us / 2000, ping, NULL);
}
