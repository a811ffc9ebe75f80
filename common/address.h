/* common/address.h - which IP addresses a client may be sent to: no SSRF (design: "Registry
 * client").
 *
 * What only looks like IPv6 (mapped, NAT64, 6to4) is judged by the IPv4 address that it carries. */
#ifndef COMMON_ADDRESS_H
#define COMMON_ADDRESS_H

struct sockaddr;

enum address_kind {
	ADDRESS_PUBLIC,
	ADDRESS_PRIVATE,    /* loopback, private, reserved, multicast, or nothing that we know */
	ADDRESS_LINK_LOCAL, /* cloud metadata too */
};
enum address_kind address_kind(const char *ip); /* IPv4 or IPv6, as text */
enum address_kind address_kind_of(const struct sockaddr *sa);

#endif
