/*
 * Theory of operation: a message is a JSON object and a NUL. The role decides
 * which of the two shapes is accepted, so a reply never passes for a call. A
 * field of a wrong type, an unknown field, a duplicate key or a bad name end
 * the connection: there is no way to answer what was not understood, and the
 * peer is a program, not a person.
 *
 * `null` for an optional field means that it is absent, as varlink's own
 * libraries write it.
 */
#include "proto/varlink.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

struct varlink {
	enum varlink_role role;
	struct buffer in;
};

void varlink_message_deinit(struct varlink_message *m)
{
	json_decref(m->parameters);
	free(m->interface);
	free(m->method);
	free(m->error);
	*m = VARLINK_MESSAGE_NULL(*m);
}

struct varlink *varlink_new(enum varlink_role role)
{
	struct varlink *v = calloc(1, sizeof(*v));

	if (v)
		v->role = role;
	return v;
}

void varlink_free(struct varlink *v)
{
	if (v)
		buffer_deinit(&v->in);
	free(v);
}

void varlink_freep(struct varlink **v)
{
	varlink_free(*v);
}

int varlink_push(struct varlink *v, const void *data, size_t len)
{
	return buffer_append(&v->in, data, len);
}

/* "reverse.domain.Name": the last dot, with sane parts on both its sides. */
static const char *split_name(const char *name)
{
	const char *dot = strrchr(name, '.');

	if (!dot || dot == name || !isupper((unsigned char)dot[1]))
		return NULL;
	for (const char *p = name; *p; p++) {
		if (isalnum((unsigned char)*p))
			continue;
		if ((*p != '.' && *p != '-') || p == name || p[-1] == '.' ||
		    p[-1] == '-' || p > dot)
			return NULL;
	}
	return dot;
}

static int take_flag(const json_t *value, bool *ret)
{
	if (!json_is_boolean(value))
		return -EBADMSG;
	*ret = json_is_true(value);
	return 0;
}

static int take_method(const json_t *value, struct varlink_message *m)
{
	const char *name = json_string_value(value), *dot;

	dot = name ? split_name(name) : NULL;
	if (!dot)
		return -EBADMSG;
	m->interface = strndup(name, (size_t)(dot - name));
	m->method = strdup(dot + 1);
	return m->interface && m->method ? 0 : -ENOMEM;
}

static int take_error(const json_t *value, struct varlink_message *m)
{
	const char *name = json_string_value(value);

	if (!name || !split_name(name))
		return -EBADMSG;
	m->error = strdup(name);
	return m->error ? 0 : -ENOMEM;
}

static int take_parameters(json_t *value, struct varlink_message *m)
{
	if (!json_is_object(value))
		return -EBADMSG;
	m->parameters = json_incref(value);
	return 0;
}

static int take_field(enum varlink_role role, const char *key, json_t *value,
		      struct varlink_message *m)
{
	if (json_is_null(value))
		return !strcmp(key, "method") ? -EBADMSG : 0;
	if (!strcmp(key, "parameters"))
		return take_parameters(value, m);

	switch (role) {
	case VARLINK_ROLE_SERVER:
		if (!strcmp(key, "method"))
			return take_method(value, m);
		if (!strcmp(key, "more"))
			return take_flag(value, &m->more);
		if (!strcmp(key, "oneway"))
			return take_flag(value, &m->oneway);
		if (!strcmp(key, "upgrade"))
			return take_flag(value, &m->upgrade);
		break;
	case VARLINK_ROLE_CLIENT:
		if (!strcmp(key, "error"))
			return take_error(value, m);
		if (!strcmp(key, "continues"))
			return take_flag(value, &m->continues);
		break;
	}
	return -EBADMSG;
}

static int parse(struct varlink *v, json_t *root, struct varlink_message *m)
{
	const char *key;
	json_t *value;
	int r;

	if (!json_is_object(root))
		return -EBADMSG;
	json_object_foreach (root, key, value) {
		r = take_field(v->role, key, value, m);
		if (r < 0)
			return r;
	}
	if (v->role == VARLINK_ROLE_SERVER && !m->method)
		return -EBADMSG;
	if (m->more && m->oneway)
		return -EBADMSG;
	if (m->error && m->continues)
		return -EBADMSG;
	if (!m->parameters)
		m->parameters = json_object();
	return m->parameters ? 0 : -ENOMEM;
}

int varlink_next(struct varlink *v, struct varlink_message *ret,
		 struct error *e)
{
	json_t *root;
	char *text;
	size_t len;
	int r;

	*ret = VARLINK_MESSAGE_NULL(*ret);
	r = buffer_take(&v->in, '\0', VARLINK_MESSAGE_MAX, &text, &len);
	if (r < 0)
		return error_set(e, r,
				 "the peer sent a message of more than %lu "
				 "bytes",
				 VARLINK_MESSAGE_MAX);
	if (r == 0)
		return 0;

	root = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
	r = parse(v, root, ret);
	json_decref(root);
	if (r < 0) {
		varlink_message_deinit(ret);
		return error_set(e, r, "the peer sent a malformed message");
	}
	return 1;
}

/* Takes @root over, also on failure. */
static int write_message(struct buffer *out, json_t *root)
{
	char *text;
	size_t len;
	int r;

	text = root ? json_dumps(root, JSON_COMPACT) : NULL;
	json_decref(root);
	if (!text)
		return -ENOMEM;
	len = strlen(text);
	/* The text's own NUL ends the message. */
	r = len > VARLINK_MESSAGE_MAX ? -EMSGSIZE
				      : buffer_append(out, text, len + 1);
	free(text);
	return r;
}

int varlink_write_call(struct buffer *out, const char *method,
		       json_t *parameters, unsigned int flags)
{
	json_t *root = json_pack("{s:s, s:O*}", "method", method, "parameters",
				 parameters);

	if (root && (flags & VARLINK_CALL_MORE))
		json_object_set_new(root, "more", json_true());
	if (root && (flags & VARLINK_CALL_ONEWAY))
		json_object_set_new(root, "oneway", json_true());
	return write_message(out, root);
}

int varlink_write_reply(struct buffer *out, json_t *parameters, bool continues)
{
	json_t *root = parameters ? json_pack("{s:O}", "parameters", parameters)
				  : json_pack("{s:{}}", "parameters");

	if (root && continues)
		json_object_set_new(root, "continues", json_true());
	return write_message(out, root);
}

int varlink_write_error(struct buffer *out, const char *name,
			json_t *parameters)
{
	json_t *root = parameters ? json_pack("{s:s, s:O}", "error", name,
					      "parameters", parameters)
				  : json_pack("{s:s, s:{}}", "error", name,
					      "parameters");

	return write_message(out, root);
}

int varlink_write_service_error(struct buffer *out, const char *name,
				const char *about)
{
	static const struct {
		const char *error;
		const char *parameter;
	} known[] = {
		{ VARLINK_ERROR_INTERFACE, "interface" },
		{ VARLINK_ERROR_METHOD, "method" },
		{ VARLINK_ERROR_PARAMETER, "parameter" },
	};
	json_t *parameters = NULL;
	int r;

	for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
		if (strcmp(name, known[i].error) != 0)
			continue;
		parameters = json_pack("{s:s}", known[i].parameter, about);
		if (!parameters)
			return -ENOMEM;
	}
	r = varlink_write_error(out, name, parameters);
	json_decref(parameters);
	return r;
}
