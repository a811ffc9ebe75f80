/* common/notify.h - tells systemd what a Type=notify service does: sd_notify(3), its datagrams on
 * $NOTIFY_SOCKET. Without that variable nothing happens. */
#ifndef COMMON_NOTIFY_H
#define COMMON_NOTIFY_H

struct loop;
struct loop_timer;

void notify_ready(void);    /* listening, Redis or not: a restart would not help */
void notify_stopping(void); /* draining */
/* Pings as often as WatchdogSec asks for, from a timer of the loop: a loop that stands still is
 * restarted. NULL when no one asks.  The caller frees the timer. */
struct loop_timer *notify_watchdog(struct loop *l);

#endif
