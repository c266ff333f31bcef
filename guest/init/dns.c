/*
 * Theory of operation
 *
 * Whoever is on the way can answer in a resolver's place, so every byte is
 * hostile: reads go through cursor functions that stop at the packet's end, and
 * a compressed name may only point backwards, which bounds it. Of an answer's
 * records, those count that belong to the name, or to what a CNAME before them
 * says is the same.
 */
#include "init/dns.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

#include "base/ip.h"
#include "base/util.h"

#define HEADER_LEN 12
#define TYPE_CNAME 5
#define CLASS_IN 1
#define LABEL_MAX 63
#define POINTER 0xc0

#define FLAG_RESPONSE 0x8000
#define FLAG_TRUNCATED 0x0200
#define OPCODE_MASK 0x7800
#define RCODE_MASK 0x000f
#define RCODE_NXDOMAIN 3

#define FLAG_RECURSION_DESIRED 0x01 /* of the query's third byte */

struct cursor {
	const uint8_t *packet;
	size_t len, at;
	bool bad;
};

static uint16_t get16(struct cursor *c)
{
	uint16_t v;

	if (c->bad || c->len - c->at < 2) {
		c->bad = true;
		return 0;
	}
	v = (uint16_t)(c->packet[c->at] << 8 | c->packet[c->at + 1]);
	c->at += 2;
	return v;
}

static uint32_t get32(struct cursor *c)
{
	uint32_t high = get16(c);

	return high << 16 | get16(c);
}

static void skip(struct cursor *c, size_t n)
{
	if (c->bad || c->len - c->at < n)
		c->bad = true;
	else
		c->at += n;
}

/* One label at @at, appended to @name. Return: its length on the wire */
static size_t take_label(struct cursor *c, size_t at, char *name, size_t *used)
{
	size_t n = c->packet[at];

	if (n > LABEL_MAX || c->len - at - 1 < n ||
	    *used + n + 1 > GUEST_HOST_NAME_MAX) {
		c->bad = true;
		return 0;
	}
	if (*used > 0)
		name[(*used)++] = '.';
	for (size_t i = 0; i < n; i++) {
		char byte = (char)c->packet[at + 1 + i];

		/* Compared as text, where these would mean something else. */
		name[(*used)++] = byte == '.' || byte == '\0' ? '?' : byte;
	}
	return n + 1;
}

/* A name, without a dot at its end. */
static void get_name(struct cursor *c, char name[GUEST_HOST_NAME_MAX + 1])
{
	size_t at = c->at, used = 0;
	bool jumped = false;

	while (!c->bad && at < c->len && c->packet[at] != 0) {
		if ((c->packet[at] & POINTER) == POINTER) {
			size_t to;

			if (c->len - at < 2)
				break;
			to = (size_t)(c->packet[at] & ~POINTER) << 8 |
			     c->packet[at + 1];
			if (!jumped)
				c->at = at + 2;
			jumped = true;
			if (to >= at)
				break;
			at = to;
			continue;
		}
		at += take_label(c, at, name, &used);
	}
	if (at >= c->len || c->packet[at] != 0)
		c->bad = true;
	else if (!jumped)
		c->at = at + 1;
	name[used] = '\0';
}

int dns_query(uint16_t id, const char *name, enum dns_type type, uint8_t *buf)
{
	const uint8_t head[HEADER_LEN] = {
		(uint8_t)(id >> 8),
		(uint8_t)id,
		FLAG_RECURSION_DESIRED,
		0,
		0,
		1, /* one question */
	};
	const uint8_t tail[] = { 0, 0, (uint8_t)type, 0, CLASS_IN };
	size_t len = sizeof(head);

	if (strlen(name) > GUEST_HOST_NAME_MAX)
		return -EINVAL;
	memcpy(buf, head, sizeof(head));
	while (*name) {
		size_t n = strcspn(name, ".");

		if (n == 0 || n > LABEL_MAX)
			return -EINVAL;
		buf[len++] = (uint8_t)n;
		memcpy(buf + len, name, n);
		len += n;
		name += n + (name[n] == '.');
	}
	memcpy(buf + len, tail, sizeof(tail));
	return (int)(len + sizeof(tail));
}

static void take_address(const uint8_t *data, uint16_t len,
			 struct dns_result *ret)
{
	struct in6_addr ip;
	struct in_addr v4;

	if (len == sizeof(v4)) {
		memcpy(&v4, data, sizeof(v4));
		ip = ip_from_v4(v4);
	} else {
		memcpy(&ip, data, sizeof(ip));
		/* That would be an A record. */
		if (ip_is_v4(&ip))
			return;
	}
	if (ip_is_unicast(&ip) && ret->n < GUEST_NAME_ADDRESSES_MAX)
		ret->addresses[ret->n++] = ip;
}

static void take_record(struct cursor *c, enum dns_type wanted, char *target,
			struct dns_result *ret)
{
	char owner[GUEST_HOST_NAME_MAX + 1];
	uint16_t type, class, len;
	uint32_t ttl;
	size_t end;

	get_name(c, owner);
	type = get16(c);
	class = get16(c);
	ttl = get32(c);
	len = get16(c);
	if (c->bad || c->len - c->at < len) {
		c->bad = true;
		return;
	}
	end = c->at + len;
	if (class == CLASS_IN && !strcasecmp(owner, target)) {
		if (type == TYPE_CNAME) {
			get_name(c, target);
		} else if (type == wanted &&
			   len == (wanted == DNS_TYPE_A ? 4 : 16)) {
			take_address(c->packet + c->at, len, ret);
		}
		if (ttl < ret->ttl_s)
			ret->ttl_s = ttl;
	}
	if (!c->bad)
		c->at = end;
}

int dns_answer(const uint8_t *packet, size_t len, uint16_t id, const char *name,
	       enum dns_type type, struct dns_result *ret)
{
	struct cursor c = { .packet = packet, .len = len };
	char target[GUEST_HOST_NAME_MAX + 1];
	uint16_t flags, questions, answers;

	*ret = (struct dns_result){ .ttl_s = UINT32_MAX };
	if (get16(&c) != id)
		return -EBADMSG;
	flags = get16(&c);
	questions = get16(&c);
	answers = get16(&c);
	skip(&c, 4);
	if (c.bad || !(flags & FLAG_RESPONSE) || flags & OPCODE_MASK ||
	    questions != 1)
		return -EBADMSG;
	get_name(&c, target);
	if (get16(&c) != type || get16(&c) != CLASS_IN || c.bad ||
	    strcasecmp(target, name) != 0)
		return -EBADMSG;
	if ((flags & RCODE_MASK) == RCODE_NXDOMAIN)
		return -ENOENT;
	if (flags & RCODE_MASK)
		return -EREMOTEIO;
	if (flags & FLAG_TRUNCATED)
		return -E2BIG;
	for (unsigned int i = 0; i < answers && !c.bad; i++)
		take_record(&c, type, target, ret);
	if (c.bad)
		return -EBADMSG;
	return ret->n > 0 ? 0 : -ENODATA;
}
