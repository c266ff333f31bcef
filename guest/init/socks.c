#include "init/socks.h"

#include <errno.h>
#include <string.h>

#include "base/util.h"

#define VERSION 5
#define METHOD_LOGIN 2
#define LOGIN_VERSION 1
#define TEXT_MAX 255

/* What does not fit into the user name is the password's; that may not be
 * empty, so a NUL stands for nothing. */
static size_t login(const char *args, uint8_t *ret)
{
	size_t len = strnlen(args, SOCKS_ARGS_MAX), at = 0;
	size_t user = len < TEXT_MAX ? len : TEXT_MAX;

	ret[at++] = LOGIN_VERSION;
	ret[at++] = (uint8_t)user;
	memcpy(ret + at, args, user);
	at += user;
	if (len == user) {
		ret[at++] = 1;
		ret[at++] = '\0';
		return at;
	}
	ret[at++] = (uint8_t)(len - user);
	memcpy(ret + at, args + user, len - user);
	return at + len - user;
}

size_t socks_request(enum socks_step step, const char *args,
		     uint8_t ret[SOCKS_REQUEST_MAX])
{
	static const uint8_t method[] = { VERSION, 1, METHOD_LOGIN };
	/* CONNECT, an IPv4 address, 192.0.2.20:80. */
	static const uint8_t connect[] = { VERSION, 1, 0,  1, 192,
					   0,       2, 20, 0, 80 };

	switch (step) {
	case SOCKS_STEP_METHOD:
		memcpy(ret, method, sizeof(method));
		return sizeof(method);
	case SOCKS_STEP_LOGIN: return login(args, ret);
	case SOCKS_STEP_CONNECT:
		memcpy(ret, connect, sizeof(connect));
		return sizeof(connect);
	case SOCKS_STEP_COUNT: break;
	}
	return 0;
}

/* VERSION REPLY 0 TYPE ADDRESS PORT. Return: the whole's length as far as it
 * can be told, or a negative errno. */
static int connect_length(const uint8_t *data, size_t len)
{
	if (data[0] != VERSION)
		return -EBADMSG;
	if (data[1] != 0)
		return -ECONNREFUSED;
	if (len < 5)
		return 5;
	switch (data[3]) {
	case 1: return 4 + 4 + 2;
	case 3: return 4 + 1 + data[4] + 2;
	case 4: return 4 + 16 + 2;
	default: return -EBADMSG;
	}
}

int socks_reply(enum socks_step step, const uint8_t *data, size_t len)
{
	int whole = 2;

	if (len < 2)
		return (int)(2 - len);
	switch (step) {
	case SOCKS_STEP_METHOD:
		if (data[0] != VERSION || data[1] != METHOD_LOGIN)
			return -EBADMSG;
		break;
	case SOCKS_STEP_LOGIN:
		if (data[0] != LOGIN_VERSION)
			return -EBADMSG;
		if (data[1] != 0)
			return -EACCES;
		break;
	case SOCKS_STEP_CONNECT: whole = connect_length(data, len); break;
	case SOCKS_STEP_COUNT: return -EBADMSG;
	}
	if (whole < 0)
		return whole;
	return len < (size_t)whole ? whole - (int)len : 0;
}
