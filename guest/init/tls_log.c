#include "init/tls_log.h"

#include <string.h>

#include "base/util.h"

#define STAMP_LEN 19
#define LEVEL_WARNING 4 /* syslog's */
#define LEVEL_NOTICE 5

/* "2026.11.29 11:21:51 LOG4[0]: text"; while it reads its configuration
 * "[!] text" instead. Return: the text */
static const char *take_level(const char *line, int *ret_level)
{
	const char *mark = strstr(line, " LOG");
	const char *text = mark ? strstr(mark, "]: ") : NULL;

	*ret_level = LEVEL_NOTICE;
	if (!strncmp(line, "[!] ", 4)) {
		*ret_level = LEVEL_WARNING;
		return line + 4;
	}
	if (!text || mark - line != STAMP_LEN || mark[4] < '0' ||
	    mark[4] > '7' || mark[5] != '[')
		return line;
	*ret_level = mark[4] - '0';
	return text + 3;
}

struct tls_line tls_parse(const char *line)
{
	static const char *const idle[] = {
		/* Said of each connection: no proof that the certificate is
		 * not revoked came with it, as is usual. */
		"OCSP: ",
		/* What was said before is the reason. */
		"Service [proxy]: Failed to initialize TLS context",
		"Configuration failed",
	};
	struct tls_line ret = { TLS_KIND_NONE };
	int level;

	ret.text = take_level(line, &level);
	/* Its sockets listen by then. */
	if (!strcmp(ret.text, "Configuration successful"))
		ret.kind = TLS_KIND_READY;
	else if (level <= LEVEL_WARNING)
		ret.kind = TLS_KIND_LOG;
	for (size_t i = 0; i < ARRAY_SIZE(idle); i++)
		if (!strncmp(ret.text, idle[i], strlen(idle[i])))
			ret.kind = TLS_KIND_NONE;
	return ret;
}
