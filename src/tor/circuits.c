#include "tor/circuits.h"

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "base/util.h"
#include "proto/text.h"
#include "proto/torctl.h"

#define HEX (TOR_FINGERPRINT_SIZE - 1)

/* Takes a line off @text. Return: 1, or 0 at the end or for a line that is
 * longer than any Tor writes. */
static int next_line(const char **text, char *line, size_t size)
{
	for (;;) {
		size_t len = strcspn(*text, "\r\n");
		const char *start = *text;

		if (*start == '\0')
			return 0;
		*text += len;
		*text += strspn(*text, "\r\n");
		if (len == 0 || len >= size)
			continue;
		memcpy(line, start, len);
		line[len] = '\0';
		return 1;
	}
}

/* Takes a word off @rest. Return: whether there was one that fits. */
static bool next_word(char **rest, char *ret, size_t size)
{
	char *word = strsep(rest, " ");

	if (!word || !*word || strlen(word) >= size)
		return false;
	text_copy(ret, size, word);
	return true;
}

/* "$FINGERPRINT~nickname" or "$FINGERPRINT=nickname". Return: whether it is. */
static bool parse_name(const char *name, char *fingerprint, char *nickname,
		       size_t size)
{
	if (name[0] != '$' || strspn(name + 1, "0123456789ABCDEFabcdef") != HEX)
		return false;
	for (size_t i = 0; i < HEX; i++)
		fingerprint[i] = (char)toupper((unsigned char)name[1 + i]);
	fingerprint[HEX] = '\0';
	name += 1 + HEX;
	if (nickname)
		text_copy(nickname, size, *name ? name + 1 : "");
	return *name == '\0' || *name == '~' || *name == '=';
}

static int find_relay(struct tor_circuits *c, const struct tor_hop_relay *relay)
{
	for (size_t i = 0; i < c->n_relays; i++)
		if (!strcmp(c->relays[i].fingerprint, relay->fingerprint))
			return (int)i;
	if (c->n_relays == ARRAY_SIZE(c->relays))
		return -ENOSPC;
	c->relays[c->n_relays] = *relay;
	return (int)c->n_relays++;
}

static void parse_path(char *path, struct tor_circuits *c,
		       struct tor_circuit *circuit)
{
	char *name;

	while ((name = strsep(&path, ",")) && circuit->n_hops < TOR_HOPS_MAX) {
		struct tor_hop_relay relay = { 0 };
		int i;

		if (!parse_name(name, relay.fingerprint, relay.nickname,
				sizeof(relay.nickname)))
			return;
		i = find_relay(c, &relay);
		if (i < 0)
			return;
		circuit->hops[circuit->n_hops++] = (uint16_t)i;
	}
}

static void argument(const char *rest, const char *key, char *ret, size_t size)
{
	torctl_argument(rest, key, ret, size);
	text_clean(ret, strlen(ret));
}

void tor_circuits_parse(const char *text, struct tor_circuits *ret)
{
	char line[4096];

	ret->n_circuits = ret->n_relays = 0;
	while (ret->n_circuits < TOR_CIRCUITS_MAX &&
	       next_line(&text, line, sizeof(line))) {
		struct tor_circuit *c = &ret->circuits[ret->n_circuits];
		char *rest = line;

		*c = (struct tor_circuit){ 0 };
		if (!next_word(&rest, c->id, sizeof(c->id)) ||
		    !next_word(&rest, c->status, sizeof(c->status)))
			continue;
		if (rest) {
			argument(rest, "PURPOSE", c->purpose,
				 sizeof(c->purpose));
			argument(rest, "TIME_CREATED", c->created,
				 sizeof(c->created));
			if (*rest == '$')
				parse_path(strsep(&rest, " "), ret, c);
		}
		ret->n_circuits++;
	}
}

void tor_streams_parse(const char *text, struct tor_circuits *ret)
{
	char line[4096];

	ret->n_streams = 0;
	while (ret->n_streams < TOR_STREAMS_MAX &&
	       next_line(&text, line, sizeof(line))) {
		struct tor_stream *s = &ret->streams[ret->n_streams];
		char *rest = line;

		*s = (struct tor_stream){ 0 };
		if (next_word(&rest, s->id, sizeof(s->id)) &&
		    next_word(&rest, s->status, sizeof(s->status)) &&
		    next_word(&rest, s->circuit, sizeof(s->circuit)) &&
		    next_word(&rest, s->target, sizeof(s->target)))
			ret->n_streams++;
	}
}

/* "$FINGERPRINT~nick" or "ADDRESS:PORT" */
static bool parse_entry(const char *name, struct tor_entry *ret)
{
	struct endpoint endpoint;

	*ret = (struct tor_entry){ 0 };
	if (parse_name(name, ret->fingerprint, NULL, 0))
		return true;
	ret->fingerprint[0] = '\0';
	if (tor_address_parse(name, strlen(name), &endpoint) < 0)
		return false;
	endpoint_format(&endpoint, ret->address);
	return true;
}

/* Its index, or n_entries */
static size_t find_entry(const struct tor_entries *e,
			 const struct tor_entry *wanted)
{
	size_t i;

	for (i = 0; i < e->n_entries; i++)
		if (!strcmp(e->entries[i].fingerprint, wanted->fingerprint) &&
		    !strcmp(e->entries[i].address, wanted->address))
			break;
	return i;
}

/* The entry of a relay, old or new; NULL: no room. */
static struct tor_entry *entry_of(struct tor_entries *e,
				  const struct tor_entry *wanted)
{
	size_t i = find_entry(e, wanted);

	if (i == TOR_ENTRIES_MAX)
		return NULL;
	if (i == e->n_entries)
		e->entries[e->n_entries++] = *wanted;
	return &e->entries[i];
}

static void remove_entry(struct tor_entries *e, size_t i)
{
	memmove(&e->entries[i], &e->entries[i + 1],
		(--e->n_entries - i) * sizeof(e->entries[0]));
}

void tor_entries_note(struct tor_entries *failed, const char *event)
{
	char line[512], name[128], status[20], *rest = line;
	struct tor_entry entry;
	size_t i;

	if (str_copy(line, sizeof(line), event) < 0 ||
	    !next_word(&rest, name, sizeof(name)) ||
	    !next_word(&rest, status, sizeof(status)) ||
	    !parse_entry(name, &entry))
		return;
	i = find_entry(failed, &entry);
	if (i < failed->n_entries && !strcmp(status, "CONNECTED"))
		remove_entry(failed, i);
	/* That a transport did not get through is not told as a failure: what
	 * was launched, did not connect and is not there any more, failed. */
	if (i < failed->n_entries ||
	    (strcmp(status, "LAUNCHED") != 0 && strcmp(status, "FAILED") != 0))
		return;
	if (failed->n_entries == TOR_ENTRIES_MAX)
		remove_entry(failed, 0);
	str_copy(entry.state, sizeof(entry.state), "failed");
	failed->entries[failed->n_entries++] = entry;
}

static void parse_guards(const char *text, struct tor_entries *ret)
{
	char line[512];

	while (next_line(&text, line, sizeof(line))) {
		char name[128], state[20], *rest = line;
		struct tor_entry entry, *e;

		if (!next_word(&rest, name, sizeof(name)) ||
		    !next_word(&rest, state, sizeof(state)) ||
		    !parse_entry(name, &entry))
			continue;
		e = entry_of(ret, &entry);
		if (e)
			str_copy(e->state, sizeof(e->state), state);
	}
}

static void parse_connections(const char *text, struct tor_entries *ret)
{
	static const struct {
		const char *tor, *ours;
	} states[] = {
		{ "CONNECTED", "connected" },
		{ "LAUNCHED", "connecting" },
		{ "NEW", "connecting" },
		{ "FAILED", "failed" },
	};
	char line[512];

	while (next_line(&text, line, sizeof(line))) {
		char name[128], state[20], *rest = line;
		struct tor_entry entry, *e;

		if (!next_word(&rest, name, sizeof(name)) ||
		    !next_word(&rest, state, sizeof(state)) ||
		    !parse_entry(name, &entry))
			continue;
		for (size_t i = 0; i < ARRAY_SIZE(states); i++) {
			if (strcmp(states[i].tor, state) != 0)
				continue;
			e = entry_of(ret, &entry);
			/* Of two connections the better one counts. */
			if (e && strcmp(e->state, "connected") != 0)
				str_copy(e->state, sizeof(e->state),
					 states[i].ours);
		}
	}
}

void tor_entries_parse(const char *guards, const struct tor_entries *failed,
		       const char *connections, struct tor_entries *ret)
{
	*ret = (struct tor_entries){ 0 };
	parse_guards(guards, ret);
	for (size_t i = 0; i < failed->n_entries; i++) {
		struct tor_entry *e = entry_of(ret, &failed->entries[i]);

		if (e)
			*e = failed->entries[i];
	}
	parse_connections(connections, ret);
}
