/* worker/probes.h - the worker's own small HTTP server: /healthz, /readyz, /metrics. */
#ifndef WORKER_PROBES_H
#define WORKER_PROBES_H

struct err;
struct httpd;
struct loop;
struct supervisor;

/* listen: ":2078", "127.0.0.1:0", "off".  A taken port is a warning, not a stop: *h is NULL then.
 */
int probes_open(struct httpd **h, struct loop *l, const char *listen, struct supervisor *v,
		struct err *e);

#endif
