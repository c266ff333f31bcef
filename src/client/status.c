#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "client/client.h"

/* A text cut within a UTF-8 character would be no text any more. */
static void copy_text(char *buf, size_t size, const char *text)
{
	size_t n;

	if (str_copy(buf, size, text) == 0)
		return;
	n = strlen(buf);
	while (n > 0 && ((unsigned char)buf[n - 1] & 0xc0) == 0x80)
		n--;
	if (n > 0 && (unsigned char)buf[n - 1] >= 0xc0)
		n--;
	buf[n] = '\0';
}

/* Each getter leaves *ok alone on success and clears it on a wrong type. */
static void get_text(const json_t *object, const char *key, char *buf,
		     size_t size, bool required, bool *ok)
{
	const json_t *value = json_object_get(object, key);

	buf[0] = '\0';
	if (json_is_string(value))
		copy_text(buf, size, json_string_value(value));
	else if (required || (value && !json_is_null(value)))
		*ok = false;
}

static int64_t get_int(const json_t *object, const char *key, int64_t absent,
		       bool required, bool *ok)
{
	const json_t *value = json_object_get(object, key);

	if (json_is_integer(value))
		return json_integer_value(value);
	if (required || (value && !json_is_null(value)))
		*ok = false;
	return absent;
}

static bool get_bool(const json_t *object, const char *key, bool *ok)
{
	const json_t *value = json_object_get(object, key);

	if (!json_is_boolean(value))
		*ok = false;
	return json_is_true(value);
}

static void get_stages(const json_t *object, struct client_status *ret,
		       bool *ok)
{
	json_t *stages = json_object_get(object, "stages");
	const char *name;
	json_t *ms;

	if (!json_is_object(stages)) {
		*ok = false;
		return;
	}
	json_object_foreach (stages, name, ms) {
		if (!json_is_integer(ms)) {
			*ok = false;
			return;
		}
		if (ret->n_stages == CLIENT_STAGES_MAX)
			return;
		copy_text(ret->stages[ret->n_stages].name,
			  sizeof(ret->stages[0].name), name);
		ret->stages[ret->n_stages++].ms = json_integer_value(ms);
	}
}

static void get_alarms(const json_t *object, struct client_status *ret,
		       bool *ok)
{
	const json_t *alarms = json_object_get(object, "alarms"), *alarm;
	size_t i;

	if (!json_is_array(alarms)) {
		*ok = false;
		return;
	}
	json_array_foreach (alarms, i, alarm) {
		if (!json_is_string(alarm)) {
			*ok = false;
			return;
		}
		if (ret->n_alarms == CLIENT_ALARMS_MAX)
			return;
		copy_text(ret->alarms[ret->n_alarms++], sizeof(ret->alarms[0]),
			  json_string_value(alarm));
	}
}

static void get_entry(const json_t *json, struct client_status *ret, bool *ok)
{
	const json_t *tried = json_object_get(json, "tried"), *one;
	size_t i;

	get_text(json, "entry", ret->entry, sizeof(ret->entry), false, ok);
	json_array_foreach (tried, i, one) {
		if (!json_is_string(one)) {
			*ok = false;
			return;
		}
		if (ret->n_tried == CLIENT_TRIED_MAX)
			return;
		copy_text(ret->tried[ret->n_tried++], sizeof(ret->tried[0]),
			  json_string_value(one));
	}
}

static void get_traffic(const json_t *json, struct client_status *ret, bool *ok)
{
	const json_t *t = json_object_get(json, "traffic");

	if (!t || json_is_null(t))
		return;
	ret->traffic.known = true;
	ret->traffic.read = get_int(t, "read", 0, true, ok);
	ret->traffic.written = get_int(t, "written", 0, true, ok);
	ret->traffic.read_rate = get_int(t, "read_rate", 0, true, ok);
	ret->traffic.written_rate = get_int(t, "written_rate", 0, true, ok);
}

static void get_obstacle(const json_t *json, struct client_status *ret,
			 bool *ok)
{
	const json_t *o = json_object_get(json, "obstacle");

	if (!o || json_is_null(o))
		return;
	get_text(o, "kind", ret->obstacle.kind, sizeof(ret->obstacle.kind),
		 true, ok);
	get_text(o, "text", ret->obstacle.text, sizeof(ret->obstacle.text),
		 true, ok);
	get_text(o, "next", ret->obstacle.next, sizeof(ret->obstacle.next),
		 true, ok);
}

/* An array of strings, each into @size bytes from @buf on. Return: how many */
static size_t get_texts(const json_t *object, const char *key, char *buf,
			size_t size, size_t max, bool *ok)
{
	const json_t *array = json_object_get(object, key), *text;
	size_t i, n = 0;

	if (!json_is_array(array))
		*ok = false;
	json_array_foreach (array, i, text) {
		if (!json_is_string(text))
			*ok = false;
		else if (n < max)
			copy_text(buf + size * n++, size,
				  json_string_value(text));
	}
	return n;
}

static void get_uplink(const json_t *json, struct client_status *ret, bool *ok)
{
	const json_t *u = json_object_get(json, "uplink"), *names, *name;
	size_t i;

	if (!u || json_is_null(u))
		return;
	ret->uplink.known = true;
	get_text(u, "transport", ret->uplink.transport,
		 sizeof(ret->uplink.transport), false, ok);
	get_text(u, "proxy", ret->uplink.proxy, sizeof(ret->uplink.proxy),
		 false, ok);
	ret->uplink.n_resolvers = get_texts(
		u, "resolvers", ret->uplink.resolvers[0],
		sizeof(ret->uplink.resolvers[0]), CLIENT_RESOLVERS_MAX, ok);
	names = json_object_get(u, "names");
	if (!json_is_array(names))
		*ok = false;
	json_array_foreach (names, i, name) {
		struct client_name *n;

		if (ret->uplink.n_names == CLIENT_NAMES_MAX)
			return;
		n = &ret->uplink.names[ret->uplink.n_names++];
		get_text(name, "name", n->name, sizeof(n->name), true, ok);
		n->n_addresses = get_texts(name, "addresses", n->addresses[0],
					   sizeof(n->addresses[0]),
					   CLIENT_NAME_ADDRESSES_MAX, ok);
		get_text(name, "error", n->error, sizeof(n->error), false, ok);
	}
}

static void get_refused_by(const json_t *json, struct client_status *ret,
			   bool *ok)
{
	const json_t *array = json_object_get(json, "refused_by"), *item;
	size_t i;

	json_array_foreach (array, i, item) {
		if (ret->n_refused_by == CLIENT_REFUSED_MAX)
			return;
		ret->refused_by[ret->n_refused_by].uid =
			get_int(item, "uid", 0, true, ok);
		ret->refused_by[ret->n_refused_by++].packets =
			get_int(item, "packets", 0, true, ok);
	}
}

int client_status_from_json(const json_t *json, struct client_status *ret,
			    struct error *e)
{
	const json_t *bootstrap = json_object_get(json, "bootstrap");
	const json_t *vm = json_object_get(json, "vm");
	const json_t *tor = json_object_get(json, "tor");
	bool ok = json_is_object(bootstrap) && json_is_object(vm) &&
		  json_is_object(tor);
	int64_t percent;

	memset(ret, 0, sizeof(*ret));
	get_text(json, "state", ret->state, sizeof(ret->state), true, &ok);
	get_text(json, "since", ret->since, sizeof(ret->since), false, &ok);
	ret->blocked = get_bool(json, "blocked", &ok);
	ret->lockdown = get_bool(json, "lockdown", &ok);
	ret->lan_access = get_bool(json, "lan_access", &ok);
	percent = get_int(bootstrap, "percent", 0, true, &ok);
	if (percent < 0 || percent > 100)
		ok = false;
	ret->bootstrap_percent = ok ? (int)percent : 0;
	get_text(bootstrap, "tag", ret->bootstrap_tag,
		 sizeof(ret->bootstrap_tag), false, &ok);
	get_text(bootstrap, "summary", ret->bootstrap_summary,
		 sizeof(ret->bootstrap_summary), false, &ok);
	get_text(json, "accel", ret->accel, sizeof(ret->accel), false, &ok);
	ret->vm_pid = get_int(vm, "pid", 0, false, &ok);
	ret->vm_uptime = get_int(vm, "uptime", -1, false, &ok);
	get_text(tor, "version", ret->tor_version, sizeof(ret->tor_version),
		 false, &ok);
	ret->circuit_established = get_bool(tor, "circuit_established", &ok);
	get_text(json, "last_error", ret->last_error, sizeof(ret->last_error),
		 false, &ok);
	get_entry(json, ret, &ok);
	get_traffic(json, ret, &ok);
	get_obstacle(json, ret, &ok);
	get_uplink(json, ret, &ok);
	get_alarms(json, ret, &ok);
	ret->confirm_left = get_int(json, "confirm_left", -1, false, &ok);
	ret->refused = get_int(json, "refused", 0, true, &ok);
	get_refused_by(json, ret, &ok);
	get_stages(json, ret, &ok);
	get_text(json, "version", ret->version, sizeof(ret->version), true,
		 &ok);
	if (!ok)
		return error_set(e, -EBADMSG,
				 "the controller's status is not what this "
				 "version of torvm (" TORVM_VERSION
				 ") understands; stop it and start it again "
				 "with the same version");
	return 0;
}

static json_t *text_or_null(const char *text)
{
	return text[0] ? json_string(text) : json_null();
}

static json_t *int_or_null(int64_t value, int64_t absent)
{
	return value == absent ? json_null() : json_integer(value);
}

static json_t *traffic_or_null(const struct client_status *s)
{
	if (!s->traffic.known)
		return json_null();
	return json_pack("{s:I, s:I, s:I, s:I}", "read",
			 (json_int_t)s->traffic.read, "written",
			 (json_int_t)s->traffic.written, "read_rate",
			 (json_int_t)s->traffic.read_rate, "written_rate",
			 (json_int_t)s->traffic.written_rate);
}

static json_t *obstacle_or_null(const struct client_status *s)
{
	if (!s->obstacle.kind[0])
		return json_null();
	return json_pack("{s:s, s:s, s:s}", "kind", s->obstacle.kind, "text",
			 s->obstacle.text, "next", s->obstacle.next);
}

static json_t *texts(const char *buf, size_t size, size_t n)
{
	json_t *array = json_array();

	for (size_t i = 0; i < n; i++)
		json_array_append_new(array, json_string(buf + size * i));
	return array;
}

static json_t *uplink_or_null(const struct client_status *s)
{
	json_t *names;

	if (!s->uplink.known)
		return json_null();
	names = json_array();
	for (size_t i = 0; i < s->uplink.n_names; i++) {
		const struct client_name *n = &s->uplink.names[i];

		json_array_append_new(
			names, json_pack("{s:s, s:o, s:o}", "name", n->name,
					 "addresses",
					 texts(n->addresses[0],
					       sizeof(n->addresses[0]),
					       n->n_addresses),
					 "error", text_or_null(n->error)));
	}
	return json_pack("{s:o, s:o, s:o, s:o}", "transport",
			 text_or_null(s->uplink.transport), "proxy",
			 text_or_null(s->uplink.proxy), "resolvers",
			 texts(s->uplink.resolvers[0],
			       sizeof(s->uplink.resolvers[0]),
			       s->uplink.n_resolvers),
			 "names", names);
}

json_t *client_status_to_json(const struct client_status *s)
{
	json_t *stages = json_object(), *alarms = json_array();
	json_t *tried = json_array();

	json_t *refused_by = json_array(), *json;

	for (size_t i = 0; i < s->n_stages; i++)
		json_object_set_new(stages, s->stages[i].name,
				    json_integer(s->stages[i].ms));
	for (size_t i = 0; i < s->n_tried; i++)
		json_array_append_new(tried, json_string(s->tried[i]));
	for (size_t i = 0; i < s->n_alarms; i++)
		json_array_append_new(alarms, json_string(s->alarms[i]));
	for (size_t i = 0; i < s->n_refused_by; i++)
		json_array_append_new(
			refused_by,
			json_pack("{s:I, s:I}", "uid",
				  (json_int_t)s->refused_by[i].uid, "packets",
				  (json_int_t)s->refused_by[i].packets));
	json = json_pack(
		"{s:s, s:o, s:b, s:b, s:b, s:{s:i, s:s, s:s}, s:o, s:{s:o, s:o},"
		" s:{s:o, s:b}, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:I, s:o,"
		" s:s}",
		"state", s->state, "since", text_or_null(s->since), "blocked",
		s->blocked, "lockdown", s->lockdown, "lan_access",
		s->lan_access, "bootstrap", "percent", s->bootstrap_percent,
		"tag", s->bootstrap_tag, "summary", s->bootstrap_summary,
		"accel", text_or_null(s->accel), "vm", "pid",
		int_or_null(s->vm_pid, 0), "uptime",
		int_or_null(s->vm_uptime, -1), "tor", "version",
		text_or_null(s->tor_version), "circuit_established",
		s->circuit_established, "entry", text_or_null(s->entry),
		"tried", tried, "traffic", traffic_or_null(s), "obstacle",
		obstacle_or_null(s), "uplink", uplink_or_null(s), "last_error",
		text_or_null(s->last_error), "alarms", alarms, "confirm_left",
		int_or_null(s->confirm_left, -1), "refused",
		(json_int_t)s->refused, "stages", stages, "version",
		s->version);
	json_object_set_new(json, "refused_by", refused_by);
	return json;
}

static bool exists(const char *runtime_dir, const char *name)
{
	_cleanup_free_ char *path = NULL;

	if (asprintf(&path, "%s/%s", runtime_dir, name) < 0)
		return false;
	return access(path, F_OK) == 0;
}

bool client_leftovers(const char *runtime_dir)
{
	return exists(runtime_dir, "journal");
}

bool client_lockdown(const char *runtime_dir)
{
	return exists(runtime_dir, "lockdown");
}

void client_status_stopped(const char *runtime_dir, struct client_status *ret)
{
	*ret = (struct client_status){
		.state = CLIENT_STATE_STOPPED,
		.vm_uptime = -1,
		.confirm_left = -1,
		.version = TORVM_VERSION,
	};
	ret->lockdown = ret->blocked = client_lockdown(runtime_dir);
	if (!client_leftovers(runtime_dir))
		return;
	ret->blocked = true;
	str_copy(ret->last_error, sizeof(ret->last_error),
		 "a controller ended without restoring the network, so traffic "
		 "may still be blocked; protect it again with \"torvm up\" or "
		 "open the network with \"torvm recover\"");
}
