/* Bridge lines: [TRANSPORT] ADDRESS:PORT [FINGERPRINT] [NAME=VALUE ...] */
#pragma once

#include "config/fields.h"

/* Whether @line is a bridge line of a transport that TorVM carries. Lines are
 * secrets: the problem names the argument, never its value. */
int config_check_bridge_line(const char *line, struct config_problem *p);

/* The transport of a line that was found good. */
enum config_transport config_bridge_line_transport(const char *line);
