/* common/address.c - see address.h. */
#include "common/address.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

static enum address_kind kind4(uint32_t a)
{
	static const struct {
		uint32_t net, mask;
		enum address_kind kind;
	} nets[] = {
		{0xa9fe0000, 0xffff0000, ADDRESS_LINK_LOCAL}, /* 169.254/16: cloud metadata */
		{0x00000000, 0xff000000, ADDRESS_PRIVATE},
		{0x0a000000, 0xff000000, ADDRESS_PRIVATE},
		{0x64400000, 0xffc00000, ADDRESS_PRIVATE}, /* 100.64/10 */
		{0x7f000000, 0xff000000, ADDRESS_PRIVATE},
		{0xac100000, 0xfff00000, ADDRESS_PRIVATE},
		{0xc0a80000, 0xffff0000, ADDRESS_PRIVATE},
		{0xc0000000, 0xffffff00, ADDRESS_PRIVATE}, /* 192.0.0/24 */
		{0xc6120000, 0xfffe0000, ADDRESS_PRIVATE}, /* 198.18/15 */
		{0xe0000000, 0xe0000000, ADDRESS_PRIVATE}, /* multicast, reserved, broadcast */
	};

	for (size_t i = 0; i < sizeof(nets) / sizeof(*nets); i++)
		if ((a & nets[i].mask) == nets[i].net)
			return nets[i].kind;
	return ADDRESS_PUBLIC;
}

static enum address_kind kind6(const uint8_t a[16])
{
	static const uint8_t zero[12], mapped[12] = {[10] = 0xff, [11] = 0xff},
				       nat64[12] = {0x00, 0x64, 0xff, 0x9b};
	uint32_t low = (uint32_t)a[12] << 24 | (uint32_t)a[13] << 16 | (uint32_t)a[14] << 8 | a[15];

	if (!memcmp(a, mapped, 12) || !memcmp(a, nat64, 12) || !memcmp(a, zero, 12))
		return kind4(low);	  /* ::1 and :: are 0.0.0.1 and 0.0.0.0 then: private */
	if (a[0] == 0x20 && a[1] == 0x02) /* 6to4 carries an IPv4 address */
		return kind4((uint32_t)a[2] << 24 | (uint32_t)a[3] << 16 | (uint32_t)a[4] << 8 |
			     a[5]);
	if (a[0] == 0xfe && (a[1] & 0xc0) == 0x80)
		return ADDRESS_LINK_LOCAL;
	/* AWS metadata over IPv6 lives in a unique local address: fd00:ec2::254. */
	if (a[0] == 0xfd && a[1] == 0x00 && a[2] == 0x0e && a[3] == 0xc2)
		return ADDRESS_LINK_LOCAL;
	if ((a[0] & 0xfe) == 0xfc || (a[0] == 0xfe && (a[1] & 0xc0) == 0xc0) || a[0] == 0xff)
		return ADDRESS_PRIVATE;
	return ADDRESS_PUBLIC;
}

enum address_kind address_kind(const char *ip)
{
	struct in_addr a4;
	struct in6_addr a6;
	char plain[64];

	snprintf(plain, sizeof(plain), "%s", ip);
	plain[strcspn(plain, "%")] = '\0'; /* a zone */
	if (inet_pton(AF_INET, plain, &a4) == 1)
		return kind4(ntohl(a4.s_addr));
	if (inet_pton(AF_INET6, plain, &a6) == 1)
		return kind6(a6.s6_addr);
	return ADDRESS_PRIVATE;
}

enum address_kind address_kind_of(const struct sockaddr *sa)
{
	if (sa->sa_family == AF_INET)
		return kind4(
			ntohl(((const struct sockaddr_in *)(const void *)sa)->sin_addr.s_addr));
	if (sa->sa_family == AF_INET6)
		return kind6(((const struct sockaddr_in6 *)(const void *)sa)->sin6_addr.s6_addr);
	return ADDRESS_PRIVATE;
}
