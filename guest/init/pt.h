/*
 * What a managed pluggable transport says on its output: pt-spec.txt, section
 * 3.3, the client's half. Pure: no I/O.
 */
#pragma once

#include <stdint.h>

enum pt_kind {
	PT_KIND_NONE,   /* nothing to act upon */
	PT_KIND_METHOD, /* listens: port */
	PT_KIND_DONE,   /* no further method will come */
	PT_KIND_ERROR,  /* cannot work: text */
	PT_KIND_LOG,    /* for a person: text */
};

struct pt_line {
	enum pt_kind kind;
	uint16_t port;    /* METHOD: on 127.0.0.1, SOCKS 5 */
	const char *text; /* ERROR, LOG: within the line */
};

/**
 * pt_parse() - Read one line
 * @line:	Terminated, without LF; may be changed
 * @transport:	Of which a CMETHOD is wanted
 *
 * A complaint about the proxy is not passed on: its text may hold the login.
 */
struct pt_line pt_parse(char *line, const char *transport);
