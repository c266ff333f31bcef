#include "init/tor.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

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

int tor_prepare(bool ram_data, struct error *e)
{
	int r = make_folder("/run/torvm", 0, 0755);

	if (r == 0)
		r = make_folder("/run/tor", GUEST_TOR_UID, 0700);
	if (r == 0 && ram_data)
		r = make_folder(GUEST_TORRC_DATA_RAM, GUEST_TOR_UID, 0700);
	if (r < 0)
		return error_set(e, r, "cannot make Tor's folders: %s",
				 strerror(-r));
	return 0;
}

int tor_write_torrc(const char *torrc, size_t len, const char *transport,
		    uint16_t port, struct error *e)
{
	static char text[GUEST_FILE_MAX + 128];
	int n;

	memcpy(text, torrc, len);
	if (transport) {
		n = snprintf(text + len, sizeof(text) - len,
			     "ClientTransportPlugin %s socks5 127.0.0.1:%u\n",
			     transport, port);
		len += (size_t)n;
	}
	n = system_write_file(TOR_TORRC, text, len, 0440, e);
	explicit_bzero(text, sizeof(text));
	return n;
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
