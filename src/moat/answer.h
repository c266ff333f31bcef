/*
 * The circumvention settings API of the Tor Project's bridge distributor
 * (rdsys, doc/moat.md): what it is asked, and its answers. Pure: no I/O.
 * Answers are hostile text; what comes out of here is checked.
 */
#pragma once

#include "config/bridge_list.h"

/* Longest answer that is read, in bytes. */
#define MOAT_ANSWER_MAX ((size_t)1024 * 1024)
/* Lines of text for people, of map and countries. */
#define MOAT_TEXTS_MAX 300

enum moat_question {
	MOAT_QUESTION_SETTINGS,  /* what works in a country */
	MOAT_QUESTION_DEFAULTS,  /* what works in most */
	MOAT_QUESTION_BUILTIN,   /* the public bridges */
	MOAT_QUESTION_MAP,       /* what works where */
	MOAT_QUESTION_COUNTRIES, /* where something is needed */
	MOAT_QUESTION_COUNT,
};

/* The last part of its address: "settings", ... */
const char *moat_question_name(enum moat_question question);
int moat_question_from_name(const char *name); /* or -EINVAL */

/**
 * moat_request_body() - What is to be posted
 * @country:	Two letters, or "": the service looks where the request is from
 * @transport:	-1: every transport that TorVM has
 *
 * Return: JSON owned by the caller (free()); NULL: the question has no body (a
 * GET), or out of memory with *@ret_error set
 */
char *moat_request_body(enum moat_question question, const char *country,
			int transport, bool *ret_error);

struct moat_answer {
	struct config_bridge_list bridges;
	size_t n_left_out;           /* lines that TorVM cannot use */
	char country[3];             /* that it is about; "": not told */
	bool none_needed;            /* Tor works there without bridges */
	char *texts[MOAT_TEXTS_MAX]; /* printable ASCII */
	size_t n_texts;
};
#define MOAT_ANSWER_NULL(a) ((struct moat_answer){ 0 })
void moat_answer_deinit(struct moat_answer *answer);

/**
 * moat_answer_parse() - Read an answer
 * @transport:	Bridges of others are left out without a word; -1: none are
 *
 * Return: 0; -EBADMSG: no such answer; -EREMOTEIO: the service refuses, its
 * words are in the sentence; -ENOMEM
 */
int moat_answer_parse(enum moat_question question, int transport,
		      const char *text, size_t len, struct moat_answer *ret,
		      struct error *e);
