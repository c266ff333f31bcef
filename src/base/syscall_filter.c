#include "base/syscall_filter.h"

#include <string.h>

#include "base/util.h"

int syscall_filter_add(scmp_filter_ctx filter, uint32_t action,
		       const char *names)
{
	char copy[1024], *save = NULL, *name;
	int r = str_copy(copy, sizeof(copy), names);

	for (name = strtok_r(copy, " ", &save); name && r == 0;
	     name = strtok_r(NULL, " ", &save)) {
		int nr = seccomp_syscall_resolve_name(name);

		/* Negative: not a call of this architecture. */
		if (nr >= 0)
			r = seccomp_rule_add(filter, action, nr, 0);
	}
	return r;
}

int syscall_filter_load(scmp_filter_ctx filter, int r, struct error *e)
{
	if (r == 0)
		r = seccomp_load(filter);
	seccomp_release(filter);
	if (r < 0)
		return error_set(e, r,
				 "the system call filter cannot be installed "
				 "(%s); does the kernel have seccomp?",
				 strerror(-r));
	return 0;
}
