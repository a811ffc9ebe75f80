/* worker/classify.h - what a manifest is: an image, an index, or something to skip and why.
 * Skips are errors of CLASS_SKIP with the final words. */
#ifndef WORKER_CLASSIFY_H
#define WORKER_CLASSIFY_H

#include <stdbool.h>
#include <stddef.h>

#include "worker/oci/imageconfig.h"
#include "worker/oci/index.h"
#include "worker/oci/manifest.h"

struct err;
struct imageref;
struct manifest_body;
struct rules;

enum manifest_kind { KIND_IMAGE, KIND_INDEX };

#define ANN_SOURCE_DIGEST "io.acceld.source.digest"
#define ANN_SOURCE_REFERENCE "io.acceld.source.reference"
#define ANN_FORMAT "io.acceld.format"
#define ANN_OPTIONS "io.acceld.options"
#define ANN_GENERATION "io.acceld.generation"
#define ANN_PLAIN "io.acceld.plain" /* on a layer: pullable, not lazy, and why */

/* By media type and content; schema 1 and unknown types are skipped here, before anything is
 * parsed. */
int classify_body(const struct manifest_body *b, enum manifest_kind *kind, struct err *e);
/* Our own output, or another converter's: skipped. */
int classify_annotations(const struct annotations *a, struct err *e);
/* Signature, SBOM, chart, WASM, attestation, foreign or encrypted layers, already converted. */
int classify_manifest(const struct manifest *m, struct err *e);
/* Windows; layers and diff_ids that do not fit each other (ERR_CORRUPT). */
int classify_config(const struct manifest *m, const struct imageconfig *c, struct err *e);
/* The child is no image of its own (attestation, artifact, nested index): dropped, *why (static)
 * says it. */
bool classify_child_is_image(const struct descriptor *d, const char **why);
/* The tag is the output of a rule, or a cache tag. */
int classify_reference(const struct rules *rules, const struct imageref *ref, struct err *e);

#endif
