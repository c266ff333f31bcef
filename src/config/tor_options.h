/*
 * The torrc options that tor.options may hold. A torrc can open ports, start
 * programs and read and write files; nothing of the kind is accepted here.
 */
#pragma once

#include "config/fields.h"

/* Whether @line is "NAME VALUE" with an allowed NAME and a fitting VALUE. */
int config_check_tor_option(const char *line, struct config_problem *p);

/* Whether @cfg says which relays Tor may use, or has to avoid. */
bool config_chooses_relays(const struct config *cfg);

/* Allowed names in alphabetical order; NULL after the last. */
const char *config_tor_option_name(size_t i);
