#include "daemon/status.h"

#include <stdint.h>

#include "daemon/engine.h"
#include "daemon/log_buffer.h"
#include "vm/args.h"

static json_t *stages(const struct engine *e)
{
	json_t *object = json_object();

	for (int i = 0; i < LIFECYCLE_STATE_COUNT; i++)
		if (e->stage_ms[i])
			json_object_set_new(object, lifecycle_state_name(i),
					    json_integer(e->stage_ms[i]));
	for (int i = 0; i < AGENT_STAGE_COUNT; i++) {
		char name[40];

		if (!e->agent.stage_ms[i])
			continue;
		snprintf(name, sizeof(name), "guest.%s", agent_stage_name(i));
		json_object_set_new(object, name,
				    json_integer(e->agent.stage_ms[i]));
	}
	return object;
}

static json_t *vm(const struct engine *e)
{
	json_t *object = json_object();

	if (e->vm.pid > 0) {
		uint64_t up_ms =
			uv_now((uv_loop_t *)&e->loop) - e->vm.started_ms;

		json_object_set_new(object, "pid", json_integer(e->vm.pid));
		json_object_set_new(object, "uptime",
				    json_integer((json_int_t)(up_ms / 1000)));
	}
	return object;
}

static json_t *alarms(const struct engine *e)
{
	json_t *array = json_array();

	for (size_t i = 0; i < e->auditor.n_alarms; i++)
		json_array_append_new(array, json_string(e->auditor.alarms[i]));
	return array;
}

static json_t *traffic(const struct tor_bandwidth *b)
{
	return json_pack("{s:I, s:I, s:I, s:I}", "read", (json_int_t)b->read,
			 "written", (json_int_t)b->written, "read_rate",
			 (json_int_t)b->read_rate, "written_rate",
			 (json_int_t)b->written_rate);
}

static json_t *tried(const struct entry *entry)
{
	json_t *array = json_array();

	for (size_t i = 0; i < entry->n_tried; i++)
		json_array_append_new(array, json_string(entry->tried[i]));
	return array;
}

static void set_obstacle(json_t *status, const struct engine *e)
{
	enum tor_obstacle obstacle;
	char next[200];

	/* While Tor does not run there is nothing that keeps it. */
	if (!e->entry.moat &&
	    tor_link_obstacle(&e->tor, &obstacle, next, sizeof(next)))
		json_object_set_new(
			status, "obstacle",
			json_pack("{s:s, s:s, s:s}", "kind",
				  tor_obstacle_name(obstacle), "text",
				  tor_obstacle_text(obstacle), "next", next));
}

static json_t *uplink(const struct engine *e)
{
	const struct config *cfg = e->cfg;
	json_t *object;

	if (!cfg->bridge.use_bridges && cfg->proxy.type == CONFIG_PROXY_NONE)
		return NULL;
	object = json_pack("{s:o, s:o}", "resolvers",
			   names_resolvers_json(&e->names), "names",
			   names_json(&e->names));
	if (cfg->bridge.use_bridges)
		json_object_set_new(object, "transport",
				    json_string(config_transport_name(
					    cfg->bridge.transport)));
	if (cfg->proxy.type != CONFIG_PROXY_NONE)
		json_object_set_new(
			object, "proxy",
			json_string(config_proxy_name(cfg->proxy.type)));
	return object;
}

static json_t *refused_by(const struct engine *e)
{
	json_t *array = json_array();

	for (uint32_t i = 0; i < e->n_refused_by; i++)
		json_array_append_new(
			array,
			json_pack("{s:I, s:I}", "uid",
				  (json_int_t)e->refused_by[i].uid, "packets",
				  (json_int_t)e->refused_by[i].packets));
	return array;
}

json_t *status_object(const struct engine *e)
{
	const struct torctl_bootstrap *b = &e->tor.bootstrap;
	json_t *tor = json_pack("{s:b}", "circuit_established",
				e->tor.circuit_established);
	int confirm_left = engine_confirm_left(e);
	char since[40];
	json_t *status;

	if (e->tor.version[0])
		json_object_set_new(tor, "version",
				    json_string(e->tor.version));
	log_format_time((int64_t)e->since.tv_sec * 1000 +
				e->since.tv_nsec / 1000000,
			since, sizeof(since));
	status = json_pack(
		"{s:s, s:s, s:b, s:b, s:b, s:{s:i, s:s, s:s}, s:o, s:o, s:o, s:I, s:o, s:o, s:s}",
		"state", lifecycle_state_name(e->state), "since", since,
		"blocked", e->block_up, "lockdown", e->lockdown, "lan_access",
		e->cfg->network.lan_access, "bootstrap", "percent",
		(int)b->percent, "tag", b->tag, "summary", b->summary, "vm",
		vm(e), "tor", tor, "alarms", alarms(e), "refused",
		(json_int_t)e->refused_packets, "refused_by", refused_by(e),
		"stages", stages(e), "version", TORVM_VERSION);
	if (!status)
		return NULL;
	json_object_set_new(status, "uplink", uplink(e));
	if (e->vm.accel.proven)
		json_object_set_new(
			status, "accel",
			json_string(vm_accel_name(e->vm.accel.current)));
	json_object_set_new(status, "entry",
			    json_string(entry_name(&e->entry)));
	json_object_set_new(status, "tried", tried(&e->entry));
	if (e->tor.bandwidth.read || e->tor.bandwidth.written)
		json_object_set_new(status, "traffic",
				    traffic(&e->tor.bandwidth));
	set_obstacle(status, e);
	if (e->last_error[0])
		json_object_set_new(status, "last_error",
				    json_string(e->last_error));
	if (confirm_left >= 0)
		json_object_set_new(status, "confirm_left",
				    json_integer(confirm_left));
	return status;
}

void status_line(const struct engine *e, char *ret, size_t size)
{
	const char *state = lifecycle_state_name(e->state);
	const struct torctl_bootstrap *b = &e->tor.bootstrap;

	switch (e->state) {
	case LIFECYCLE_STATE_RUNNING:
	case LIFECYCLE_STATE_SHUTDOWN: /* the broker's lines come now */
	case LIFECYCLE_STATE_RESTORE_NETWORK:
	case LIFECYCLE_STATE_CLEANUP:
	case LIFECYCLE_STATE_COUNT: snprintf(ret, size, "%s", ""); return;
	case LIFECYCLE_STATE_CONFIGURE_TAP:
	case LIFECYCLE_STATE_FLUSH_DNS:
	case LIFECYCLE_STATE_WAIT_BOOTSTRAP:
	case LIFECYCLE_STATE_BLOCKED:
		if (e->vm.pid <= 0)
			break;
		snprintf(ret, size, "%s: Tor %u %% %.100s", state, b->percent,
			 b->summary);
		return;
	case LIFECYCLE_STATE_INIT:
	case LIFECYCLE_STATE_CHECK_PRIVILEGES:
	case LIFECYCLE_STATE_SAVE_NETWORK:
	case LIFECYCLE_STATE_CREATE_TAP:
	case LIFECYCLE_STATE_LAUNCH_VM:
	case LIFECYCLE_STATE_WAIT_TAP: break;
	}
	snprintf(ret, size, "%s ...", state);
}
