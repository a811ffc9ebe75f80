/* worker/rafs/blake3_simd.c - the compression function over several inputs at once, one input a
 * lane.
 *
 * Written once in the compiler's vector types (blake3_lanes.h) and instantiated for 8 lanes with
 * AVX2 and for 4 with SSE4.1 or NEON.  Shuffles are spelled so that each is one instruction there.
 */
#include "worker/rafs/blake3.h"

#include <string.h>

#if defined(__x86_64__)
#define LANES 8
#define NAME(x) x##_avx2
#define TARGET __attribute__((target("avx2")))
#define ENTRY blake3_lanes8_avx2
#include "worker/rafs/blake3_lanes.h"
#undef LANES
#undef NAME
#undef TARGET
#undef ENTRY

#define LANES 4
#define NAME(x) x##_sse41
#define TARGET __attribute__((target("sse4.1")))
#define ENTRY blake3_lanes4
#include "worker/rafs/blake3_lanes.h"
#elif defined(__ARM_NEON)
#define LANES 4
#define NAME(x) x##_neon
#define TARGET
#define ENTRY blake3_lanes4
#include "worker/rafs/blake3_lanes.h"
#endif
