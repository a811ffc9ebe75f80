/* worker/drivers/toccompare.h - two tables of one layer side by side: the one that its writer left
 * in the blob, and the one that the tar and the bytes make. */
#ifndef WORKER_DRIVERS_TOCCOMPARE_H
#define WORKER_DRIVERS_TOCCOMPARE_H

struct err;
struct toc;

/* Both sealed, of one form, both with toc_file_end_at.  ERR_CORRUPT names the first entry that
 * differs, and in what. */
int toc_compare(struct toc *told, struct toc *found, struct err *e);

#endif
