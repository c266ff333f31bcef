#include "init/tor.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/ip.h"
#include "base/util.h"
#include "init/child.h"
#include "init/contract.h"
#include "init/system.h"

#define TOR_PROGRAM "/usr/bin/tor"

static int make_folder(const char *path, uid_t owner, mode_t mode)
{
	if (mkdir(path, mode) < 0 || chown(path, owner, owner) < 0 ||
	    chmod(path, mode) < 0)
		return -errno;
	return 0;
}

int tor_prepare(bool ram_data, bool geoip, struct error *e)
{
	int r;

	/* Tor goes on without it, and excludes nobody. The kernel, too, when
	 * there was no room to unpack all of it. */
	if (geoip && access(GUEST_GEOIP_LAST, F_OK) < 0)
		return error_set(e, -errno,
				 "the list of countries was not handed in, or "
				 "did not fit into memory: raise vm.memory_mb");
	r = make_folder("/run/torvm", 0, 0755);
	if (r == 0)
		r = make_folder("/run/tor", GUEST_TOR_UID, 0700);
	if (r == 0 && ram_data)
		r = make_folder(GUEST_TORRC_DATA_RAM, GUEST_TOR_UID, 0700);
	if (r < 0)
		return error_set(e, r, "cannot make Tor's folders: %s",
				 strerror(-r));
	return 0;
}

/* The host of a line "Socks5Proxy HOST:PORT", or of the like. Return: its
 * length, 0: no such line */
static size_t proxy_host(const char *line, size_t len, const char **ret)
{
	static const char *const options[] = { "Socks5Proxy ", "HTTPSProxy " };

	for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
		size_t n = strlen(options[i]);

		if (len > n && !strncmp(line, options[i], n)) {
			const char *colon = memchr(line + n, ':', len - n);

			*ret = line + n;
			return colon ? (size_t)(colon - *ret) : 0;
		}
	}
	return 0;
}

static void write_line(FILE *out, const char *line, size_t len,
		       const struct names *names)
{
	char host[GUEST_HOST_NAME_MAX + 1], ip[IP_TEXT_MAX];
	struct in6_addr address;
	const char *at = NULL;
	size_t n = proxy_host(line, len, &at);

	/* Tor's sandbox has no resolver, and it would keep what it found. */
	if (n > 0 && n < sizeof(host)) {
		memcpy(host, at, n);
		host[n] = '\0';
		if (names_address(names, host, &address) == 0) {
			ip_format(&address, ip);
			fprintf(out, ip_is_v4(&address) ? "%.*s%s" : "%.*s[%s]",
				(int)(at - line), line, ip);
			len -= (size_t)(at + n - line);
			line = at + n;
		}
	}
	fwrite(line, 1, len, out);
}

int tor_write_torrc(const char *torrc, size_t len, const struct names *names,
		    uint16_t transport_port, struct error *e)
{
	static char text[GUEST_FILE_MAX + 256];
	FILE *out = fmemopen(text, sizeof(text), "w");
	long written;
	int r;

	if (!out)
		return error_set(e, -ENOMEM, "out of memory");
	while (len > 0) {
		/* The check saw that each line has its end. */
		size_t n = (size_t)((const char *)memchr(torrc, '\n', len) -
				    torrc) +
			   1;

		write_line(out, torrc, n, names);
		torrc += n;
		len -= n;
	}
	if (transport_port)
		fprintf(out, "ClientTransportPlugin %s socks5 127.0.0.1:%u\n",
			names->config->transport, transport_port);
	written = ftell(out);
	if (fclose(out) != 0 || written < 0)
		return error_set(e, -EIO, "the torrc cannot be written");
	r = system_write_file(TOR_TORRC, text, (size_t)written, 0440, e);
	explicit_bzero(text, sizeof(text));
	return r;
}

pid_t tor_start(int *ret_output, struct error *e)
{
	static const char *const argv[] = { TOR_PROGRAM, "-f", TOR_TORRC,
					    NULL };
	static const char *const environment[] = { NULL };
	const struct child tor = {
		.what = "Tor",
		.argv = argv,
		.environment = environment,
		.uid = GUEST_TOR_UID,
	};

	return child_start(&tor, ret_output, e);
}

int tor_connect(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX,
				       .sun_path = GUEST_TORRC_CONTROL_SOCKET };
	_cleanup_close_ int fd =
		socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0 ||
	    connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		return -errno;
	return steal_fd(&fd);
}

int tor_ask_to_stop(int control)
{
	static const char request[] = "AUTHENTICATE\r\nSIGNAL SHUTDOWN\r\n";
	const ssize_t len = sizeof(request) - 1;

	if (control < 0)
		return -ENOTCONN;
	return send(control, request, (size_t)len, MSG_NOSIGNAL) == len
		       ? 0
		       : -EPIPE;
}
