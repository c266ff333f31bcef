/* What the files of `torvm doctor` share. */
#pragma once

#include "cli/cli.h"
#include "config/config.h"

enum result { RESULT_OK, RESULT_NOTE, RESULT_BAD, RESULT_COUNT };

struct finding {
	enum result result;
	char text[500];
	char mend[200]; /* "": nothing to do */
};

struct doctor {
	const struct cli_args *args;
	struct config *cfg; /* the defaults if there is no good one */
	bool running;       /* a controller answers */
};

void found(struct finding *f, enum result result, const char *mend,
	   const char *fmt, ...) _printf_(4, 5);

/* doctor_dns.c */
void doctor_check_resolver(struct doctor *d, struct finding *f);
void doctor_check_resolved(struct doctor *d, struct finding *f);
void doctor_check_names(struct doctor *d, struct finding *f);
void doctor_check_firewalld(struct doctor *d, struct finding *f);
