/*
 * Error reports that a person can act on.
 *
 * Contract of every function of ours that can fail: it returns 0 (or a
 * documented non-negative value) on success and a negative errno on failure;
 * where it takes a `struct error *`, it also leaves a sentence there that says
 * what happened and what to do. A caller forwards the code untouched and may
 * put context before the sentence. NULL is allowed: nobody wants the sentence.
 */
#pragma once

#include <stddef.h>

#include "base/util.h"

struct error {
	int code; /* negative errno; 0: none */
	char text[480];
};

#define ERROR_NULL(e) ((struct error){ 0 })

/**
 * error_set() - Record a failure
 * @e:		Where to; NULL allowed
 * @code:	Negative errno
 *
 * Return: @code, so that `return error_set(...)` reads well
 */
int error_set(struct error *e, int code, const char *fmt, ...) _printf_(3, 4);

/**
 * error_prefix() - Put context before an already recorded sentence
 *
 * "context: sentence"; cut at the buffer's end. Return: the recorded code.
 */
int error_prefix(struct error *e, const char *fmt, ...) _printf_(2, 3);
