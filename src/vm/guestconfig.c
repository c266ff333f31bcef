#include "vm/guestconfig.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>

#include "init/contract.h"

int guestconfig_render(const struct guestconfig *g, char **ret, struct error *e)
{
	char host_ip[INET_ADDRSTRLEN], vm_ip[INET_ADDRSTRLEN];
	const uint8_t *mac = g->host_mac;

	inet_ntop(AF_INET, &g->host_ip, host_ip, sizeof(host_ip));
	inet_ntop(AF_INET, &g->vm_ip, vm_ip, sizeof(vm_ip));
	if (asprintf(ret,
		     "version=%d\n"
		     "time=%" PRId64 "\n"
		     "state_disk=%d\n"
		     "host_ip=%s\n"
		     "vm_ip=%s\n"
		     "host_mac=%02x:%02x:%02x:%02x:%02x:%02x\n",
		     GUEST_CONFIG_VERSION, (int64_t)g->time, g->state_disk,
		     host_ip, vm_ip, mac[0], mac[1], mac[2], mac[3], mac[4],
		     mac[5]) < 0)
		return error_set(e, -ENOMEM, "out of memory");
	return 0;
}

int guestconfig_memfd(const char *name, const char *text, struct error *e)
{
	_cleanup_close_ int fd = -1;
	size_t len = strlen(text);
	ssize_t n;

	fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return error_set(e, -errno, "memfd_create: %s",
				 strerror(errno));
	n = write(fd, text, len);
	if (n < 0)
		return error_set(e, -errno, "%s: %s", name, strerror(errno));
	if ((size_t)n != len)
		return error_set(e, -EIO, "%s: short write", name);
	if (fcntl(fd, F_ADD_SEALS,
		  F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) < 0)
		return error_set(e, -errno, "%s: cannot be sealed: %s", name,
				 strerror(errno));
	return steal_fd(&fd);
}
