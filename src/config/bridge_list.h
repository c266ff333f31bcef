/* Bridge lines as people have them: pasted text, the text of a QR code, the
 * built-in ones. */
#pragma once

#include "base/error.h"
#include "config/config.h"

/* As many as bridge.bridges holds. */
#define CONFIG_BRIDGES_MAX 64
/* Longest text that is read, in bytes. */
#define CONFIG_BRIDGE_TEXT_MAX ((size_t)128 * 1024)

struct config_bridge_list {
	char **lines; /* owned, each a good bridge line; secrets */
	size_t n_lines;
	size_t n_repeated; /* further ones that were there already */
};
#define CONFIG_BRIDGE_LIST_NULL(l) ((struct config_bridge_list){ 0 })

void config_bridge_list_deinit(struct config_bridge_list *list);

/**
 * config_bridge_list_add() - Append one line, checked
 * @what:	What the sentence calls it: "line 3"
 *
 * A line that is there already is counted and left out, also one that differs
 * only in spaces or in "Bridge" before it. Return: 0, -EINVAL, -E2BIG, -ENOMEM
 * with a sentence that quotes nothing of the line.
 */
int config_bridge_list_add(struct config_bridge_list *list, const char *line,
			   const char *what, struct error *e);

/**
 * config_bridge_list_parse() - Append all bridges of a pasted text
 * @text:	@len bytes, need not be terminated: one line for each bridge,
 *		with or without "Bridge" before it; empty lines and lines that
 *		begin with '#' are left out. Or what the Tor Project's QR codes
 *		hold, a list ['LINE', 'LINE'] in one piece
 *
 * Stops at the first bad line; @list then holds what came before. Pure.
 * Return: 0 or as config_bridge_list_add(), naming the line.
 */
int config_bridge_list_parse(struct config_bridge_list *list, const char *text,
			     size_t len, struct error *e);
