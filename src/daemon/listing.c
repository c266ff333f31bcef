#include "daemon/listing.h"

#include "daemon/scrub.h"

static void set_text(json_t *object, const char *key, const char *text)
{
	if (text[0])
		json_object_set_new(object, key, json_string(text));
}

static json_t *relay_object(const struct tor_hop_relay *relay, bool bridge)
{
	json_t *object = json_pack("{s:b}", "bridge", (int)bridge);

	if (bridge)
		return object;
	set_text(object, "fingerprint", relay->fingerprint);
	set_text(object, "nickname", relay->nickname);
	set_text(object, "country", relay->country);
	return object;
}

static json_t *circuit_object(const struct tor_circuits *all,
			      const struct tor_circuit *c, bool bridges)
{
	json_t *relays = json_array(), *object;

	for (size_t i = 0; i < c->n_hops; i++)
		json_array_append_new(relays,
				      relay_object(&all->relays[c->hops[i]],
						   bridges && i == 0));
	object = json_pack("{s:s, s:s, s:o}", "id", c->id, "status", c->status,
			   "relays", relays);
	set_text(object, "purpose", c->purpose);
	set_text(object, "created", c->created);
	return object;
}

static json_t *stream_object(const struct tor_stream *s,
			     const struct config *cfg)
{
	char target[sizeof(s->target)];
	json_t *object;

	str_copy(target, sizeof(target), s->target);
	scrub_line(cfg, target);
	object = json_pack("{s:s, s:s, s:s}", "id", s->id, "status", s->status,
			   "target", target);
	/* "0": none yet. */
	if (s->circuit[0] != '0' || s->circuit[1])
		set_text(object, "circuit", s->circuit);
	return object;
}

json_t *listing_circuits(const struct tor_circuits *circuits,
			 const struct config *cfg)
{
	json_t *list = json_array(), *streams = json_array();

	for (size_t i = 0; i < circuits->n_circuits; i++)
		json_array_append_new(
			list, circuit_object(circuits, &circuits->circuits[i],
					     cfg->bridge.use_bridges));
	for (size_t i = 0; i < circuits->n_streams; i++)
		json_array_append_new(
			streams, stream_object(&circuits->streams[i], cfg));
	return json_pack("{s:o, s:o}", "circuits", list, "streams", streams);
}

json_t *listing_entries(const struct tor_entries *entries)
{
	json_t *list = json_array();

	for (size_t i = 0; i < entries->n_entries; i++) {
		const struct tor_entry *e = &entries->entries[i];
		json_t *object = json_pack("{s:s}", "state", e->state);

		set_text(object, "fingerprint", e->fingerprint);
		set_text(object, "address", e->address);
		json_array_append_new(list, object);
	}
	return json_pack("{s:o}", "entries", list);
}
