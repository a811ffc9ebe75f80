/* tests/unit/unit.h - what every unit test program needs. */
#ifndef TESTS_UNIT_UNIT_H
#define TESTS_UNIT_UNIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define T(name) cmocka_unit_test(name)

/* Fails with the text that was there. */
#define assert_text_has(text, part)                                                                \
	do {                                                                                       \
		if (!strstr((text), (part)))                                                       \
			fail_msg("'%s' does not contain '%s'", (text), (part));                    \
	} while (0)

#endif
