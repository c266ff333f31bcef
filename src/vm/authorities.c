/*
 * Theory of operation
 *
 * Whoever's network intercepts TLS, as companies' proxies do, has to tell the
 * transports whose certificates to believe. They are Go programs: beside one
 * bundle these read every file in /etc/ssl/certs (crypto/x509, root_linux.go).
 * So one more file there is all that is needed, and one more archive, unpacked
 * over the others (initramfs buffer format), brings it; the guest needs no
 * part in it. A proxy's own authorities come in the same way.
 *
 * What the certificates say is not looked at: that is the task of those who use
 * them, and they have no rights.
 */
#include "vm/authorities.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "init/contract.h"

/* Where their users look; as cpio has it, without the first slash. */
static const struct {
	const char *key, *path;
} files[] = {
	[AUTHORITIES_BRIDGE] = { "bridge.ca_file", "etc/ssl/certs/local.pem" },
	[AUTHORITIES_PROXY] = { "proxy.ca_file", &GUEST_TLS_AUTHORITIES[1] },
};

#define MAX_BYTES ((size_t)256 * 1024)

#define PEM_BEGIN "-----BEGIN "
#define PEM_CERTIFICATE PEM_BEGIN "CERTIFICATE-----"

/* cpio's "newc" format: six digits, then thirteen numbers of eight hexadecimal
 * digits. */
#define CPIO_ALIGN 4
#define CPIO_HEADER_BYTES 110
#define CPIO_LAST "TRAILER!!!"

static int pad(struct buffer *out, size_t len)
{
	static const char zeros[CPIO_ALIGN] = { 0 };

	return buffer_append(out, zeros,
			     (CPIO_ALIGN - len % CPIO_ALIGN) % CPIO_ALIGN);
}

static int add_file(struct buffer *out, const char *name, unsigned int mode,
		    const char *data, size_t len)
{
	size_t name_bytes = strlen(name) + 1;
	int r;

	r = buffer_printf(out,
			  "070701%08x%08x%08x%08x%08x%08x%08zx%08x%08x%08x%08x"
			  "%08zx%08x",
			  0U, mode, 0U, 0U, 1U, 0U, len, 0U, 0U, 0U, 0U,
			  name_bytes, 0U);
	if (r == 0)
		r = buffer_append(out, name, name_bytes);
	if (r == 0)
		r = pad(out, CPIO_HEADER_BYTES + name_bytes);
	if (r == 0)
		r = buffer_append(out, data, len);
	return r < 0 ? r : pad(out, len);
}

/* Only certificates, and at least one. */
static int check_pem(const char *key, const char *path, const char *text,
		     size_t len, struct error *e)
{
	size_t n = 0;

	if (strlen(text) != len)
		return error_set(e, -EINVAL,
				 "%s: %s is not a PEM file (in DER "
				 "it is: openssl x509 -inform DER -in FILE)",
				 key, path);
	for (const char *at = text; (at = strstr(at, PEM_BEGIN)); n++) {
		if (strncmp(at, PEM_CERTIFICATE, strlen(PEM_CERTIFICATE)) != 0)
			return error_set(e, -EINVAL,
					 "%s: %s holds more than "
					 "certificates; a key does not belong "
					 "there",
					 key, path);
		at += strlen(PEM_CERTIFICATE);
	}
	if (n == 0)
		return error_set(e, -EINVAL,
				 "%s: %s holds no certificate (in "
				 "PEM one begins with " PEM_CERTIFICATE ")",
				 key, path);
	return 0;
}

static int read_file(const char *key, const char *path, char *text,
		     size_t *ret_len, struct error *e)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct stat st;
	size_t len = 0;
	ssize_t n = 0;

	if (fd < 0 || fstat(fd, &st) < 0)
		return error_set(e, -errno, "%s: %s cannot be read: %s%s", key,
				 path, strerror(errno),
				 errno == EACCES ? "; certificates are no "
						   "secret: let everybody read "
						   "it and enter its folders"
						 : "");
	if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size > MAX_BYTES)
		return error_set(e, -EINVAL,
				 "%s: %s is not a file of at most "
				 "%zu KiB",
				 key, path, MAX_BYTES / 1024);
	while (len < MAX_BYTES &&
	       (n = read(fd, text + len, MAX_BYTES - len)) > 0)
		len += (size_t)n;
	if (n < 0)
		return error_set(e, -errno, "%s: %s cannot be read: %s", key,
				 path, strerror(errno));
	text[len] = '\0';
	*ret_len = len;
	return 0;
}

int authorities_archive(enum authorities_key key, const char *path,
			struct buffer *ret, struct error *e)
{
	_cleanup_free_ char *text = malloc(MAX_BYTES + 1);
	size_t len = 0;
	int r;

	if (!text)
		return error_set(e, -ENOMEM, "out of memory");
	r = read_file(files[key].key, path, text, &len, e);
	if (r == 0)
		r = check_pem(files[key].key, path, text, len, e);
	if (r < 0)
		return r;
	r = add_file(ret, files[key].path, S_IFREG | 0444, text, len);
	if (r == 0)
		r = add_file(ret, CPIO_LAST, 0, "", 0);
	return r < 0 ? error_set(e, r, "out of memory") : 0;
}
