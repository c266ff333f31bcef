/* Small helpers that everything may use. Depends on nothing of ours. */
#pragma once

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

/* Runs fn on the variable's address when it leaves scope. */
#define _cleanup_(fn) __attribute__((cleanup(fn)))
#define _printf_(fmt, args) __attribute__((format(printf, fmt, args)))
#define _unused_ __attribute__((unused))

static inline void freep(void *p)
{
	free(*(void **)p);
}

static inline void closep(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

static inline void fclosep(FILE **f)
{
	if (*f)
		fclose(*f);
}

#define _cleanup_free_ _cleanup_(freep)
#define _cleanup_close_ _cleanup_(closep)
#define _cleanup_fclose_ _cleanup_(fclosep)

/* Hands the fd over to the caller and leaves -1 behind. */
static inline int steal_fd(int *fd)
{
	int ret = *fd;

	*fd = -1;
	return ret;
}

/* Hands the pointer over to the caller and leaves NULL behind. */
static inline void *steal_ptr_impl(void *p)
{
	void **pp = p, *ret = *pp;

	*pp = NULL;
	return ret;
}
#define steal_ptr(pp) ((__typeof__(*(pp)))steal_ptr_impl(pp))

/**
 * str_copy() - Copy a string into a fixed buffer, always terminated
 * @dst:	Buffer of @size bytes (size > 0)
 *
 * Return: 0, or -ENAMETOOLONG if @src was cut
 */
int str_copy(char *dst, size_t size, const char *src);
