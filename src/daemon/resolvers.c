/*
 * Theory of operation
 *
 * The names of proxies, brokers and fronts are looked up by the VM, but by the
 * resolvers that this computer asks anyway, so that nobody learns of them who
 * would not have. A loopback address is a program of this computer, which the
 * VM cannot ask and which could not ask on while the block is up. Of those only
 * systemd-resolved is known to say whom it would ask itself.
 */
#include "daemon/resolvers.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/ip.h"
#include "base/util.h"

#define RESOLV_CONF "/etc/resolv.conf"
#define RESOLVED_CONF "/run/systemd/resolve/resolv.conf"
#define FILE_MAX 16384 /* bytes looked at */

static void take(const char *word, size_t len, struct in_addr own, bool ipv6,
		 struct in6_addr *ret, size_t *n, bool *ret_local)
{
	const struct in6_addr own6 = ip_from_v4(own);
	char text[IP_TEXT_MAX];
	struct in6_addr address;

	if (len >= sizeof(text))
		return;
	memcpy(text, word, len);
	text[len] = '\0';
	if (ip_parse(text, &address) < 0)
		return;
	if (ip_is_v4(&address) ? address.s6_addr[12] == 127
			       : IN6_IS_ADDR_LOOPBACK(&address))
		*ret_local = true;
	if (!ip_is_unicast(&address) || ip_equal(&address, &own6) ||
	    (!ipv6 && !ip_is_v4(&address)) || *n == RESOLVERS_MAX)
		return;
	for (size_t i = 0; i < *n; i++)
		if (ip_equal(&ret[i], &address))
			return;
	ret[(*n)++] = address;
}

size_t resolvers_parse(const char *text, size_t len, struct in_addr own,
		       bool ipv6, struct in6_addr *ret, bool *ret_local)
{
	static const char word[] = "nameserver";
	const size_t word_len = sizeof(word) - 1;
	const char *end = text + len;
	size_t n = 0;

	*ret_local = false;
	while (text < end) {
		const char *lf = memchr(text, '\n', (size_t)(end - text));
		const char *stop = lf ? lf : end, *from = text + word_len;

		if ((size_t)(stop - text) > word_len &&
		    !memcmp(text, word, word_len) &&
		    (*from == ' ' || *from == '\t')) {
			const char *to;

			while (from < stop && (*from == ' ' || *from == '\t'))
				from++;
			for (to = from; to < stop && *to > ' '; to++)
				;
			take(from, (size_t)(to - from), own, ipv6, ret, &n,
			     ret_local);
		}
		text = stop + 1;
	}
	return n;
}

static size_t read_from(const char *path, struct in_addr own, bool ipv6,
			struct in6_addr *ret, bool *ret_local)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	char text[FILE_MAX];
	ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof(text));

	return resolvers_parse(text, n > 0 ? (size_t)n : 0, own, ipv6, ret,
			       ret_local);
}

int resolvers_find(struct in_addr own, bool ipv6, struct in6_addr *ret,
		   struct error *e)
{
	bool local, ignored;
	size_t n = read_from(RESOLV_CONF, own, ipv6, ret, &local);

	if (n == 0 && local)
		n = read_from(RESOLVED_CONF, own, ipv6, ret, &ignored);
	if (n > 0 || !local)
		return (int)n;
	return error_set(e, -ENOENT,
			 "/etc/resolv.conf names a program of this computer, "
			 "which the VM cannot ask, and not whom that program "
			 "asks");
}
