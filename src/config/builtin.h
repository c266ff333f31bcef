/* The bridges that everybody has: data/bridges.json, compiled in, so that they
 * are there when nothing else can be reached. */
#pragma once

#include "config/bridge_list.h"

extern const char config_builtin_json[];
extern const size_t config_builtin_json_len;

/**
 * config_builtin_bridges() - Append the built-in bridges of a transport
 *
 * Return: 0, -ENOENT when there are none (plain bridges, webtunnel), -ENOMEM
 * with a sentence
 */
int config_builtin_bridges(enum config_transport transport,
			   struct config_bridge_list *list, struct error *e);

/**
 * config_moat_bridge() - Append a bridge line that leads to the bridge service
 * @args:	bridge.moat; "": the built-in ones
 *
 * There is no bridge at its end. Return: 0, -ENOMEM with a sentence
 */
int config_moat_bridge(const char *args, struct config_bridge_list *list,
		       struct error *e);

/* When they were in use for certain, "2026-10". */
const char *config_builtin_date(void);
