/* What stunnel says on its output: stunnel(8) 5.74. Pure: no I/O. */
#pragma once

enum tls_kind {
	TLS_KIND_NONE,  /* nothing to act upon */
	TLS_KIND_READY, /* listens */
	TLS_KIND_LOG,   /* for a person: text */
};

struct tls_line {
	enum tls_kind kind;
	const char *text; /* LOG: within the line */
};

/**
 * tls_parse() - Read one line
 * @line:	Terminated, without LF
 *
 * Warnings and errors are passed on. What a certificate holds may be in them:
 * the proxy's words.
 */
struct tls_line tls_parse(const char *line);
