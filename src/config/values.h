/* What single values have to look like; see struct config_field's check. */
#pragma once

#include "config/fields.h"

int config_check_path(const char *value, struct config_problem *p);
int config_check_interface(const char *value, struct config_problem *p);
int config_check_proxy_address(const char *value, struct config_problem *p);
int config_check_pinned_address(const char *value, struct config_problem *p);
int config_check_node_list(const char *value, struct config_problem *p);

/* Whether @text is HOST:PORT with an IPv4 or [IPv6] address and a port from 1
 * to 65535; the problem names what is wrong without quoting it. */
int config_check_endpoint(const char *text, struct config_problem *p);

/* As above; a host name is good, too. */
int config_check_host_port(const char *text, struct config_problem *p);

/* Whether @text is a host name, an IPv4 or an [IPv6] address. */
bool config_is_host(const char *text);

/* Whether @text is exactly @n hexadecimal digits. */
bool config_is_hex(const char *text, size_t n);
