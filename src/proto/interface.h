/*
 * The texts of the Varlink interfaces that the engine serves, for
 * org.varlink.service.GetInterfaceDescription. Made at build time from
 * src/client/org.torvm.Controller.varlink and
 * src/proto/org.varlink.service.varlink.
 */
#pragma once

#include <stddef.h>

#include "base/util.h"

struct interface {
	const char *name; /* "org.torvm.Controller" */
	const char *description;
};

/* In the order GetInfo lists them. */
extern const struct interface interfaces[];
extern const size_t n_interfaces;

/* Return: its description, or NULL. */
const char *interface_description(const char *name);
