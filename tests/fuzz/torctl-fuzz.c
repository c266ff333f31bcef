/* Tor's control port: a whole session over the input, whole and in pieces. */
#include "fuzz.h"

#include <string.h>

#include "tor/control.h"

static void on_ready(void *userdata)
{
	mix(userdata, "r", 1);
}

static void on_version(void *userdata, const char *version)
{
	must(is_printable(version));
	mix(userdata, version, strlen(version));
}

static void on_bootstrap(void *userdata, const struct torctl_bootstrap *b)
{
	must(b->percent <= 100 && b->severity < TORCTL_SEVERITY_COUNT);
	must(is_printable(b->summary) && is_printable(b->warning));
	must(is_printable(b->tag) && is_printable(b->host_address));
	mix(userdata, b, sizeof(*b));
}

static void on_circuit(void *userdata, bool established)
{
	mix(userdata, established ? "1" : "0", 1);
}

static void on_clock_skew(void *userdata, int64_t seconds, const char *source)
{
	must(is_printable(source));
	mix(userdata, &seconds, sizeof(seconds));
	mix(userdata, source, strlen(source));
}

static void on_log(void *userdata, enum torctl_severity severity,
		   const char *text)
{
	must(severity < TORCTL_SEVERITY_COUNT && is_printable(text));
	mix(userdata, text, strlen(text));
}

static void on_relays(void *userdata, const struct tor_relays *relays)
{
	must(relays->n_endpoints <= TOR_ENDPOINTS_MAX);
	must(relays->n_fingerprints <= TOR_RELAYS_MAX);
	mix(userdata, relays, sizeof(*relays));
}

static void on_circuits(void *userdata, const struct tor_circuits *circuits)
{
	must(circuits->n_circuits <= TOR_CIRCUITS_MAX);
	must(circuits->n_streams <= TOR_STREAMS_MAX);
	for (size_t i = 0; i < circuits->n_circuits; i++) {
		const struct tor_circuit *c = &circuits->circuits[i];

		must(is_printable(c->id) && is_printable(c->status));
		must(is_printable(c->purpose) && is_printable(c->created));
		must(c->n_hops <= TOR_HOPS_MAX);
		for (size_t k = 0; k < c->n_hops; k++)
			must(c->hops[k] < circuits->n_relays);
		mix(userdata, c->id, strlen(c->id));
	}
	for (size_t i = 0; i < circuits->n_relays; i++)
		must(is_printable(circuits->relays[i].nickname) &&
		     strlen(circuits->relays[i].fingerprint) ==
			     TOR_FINGERPRINT_SIZE - 1);
	for (size_t i = 0; i < circuits->n_streams; i++)
		must(is_printable(circuits->streams[i].target));
}

static void on_entries(void *userdata, const struct tor_entries *entries)
{
	must(entries->n_entries <= TOR_ENTRIES_MAX);
	for (size_t i = 0; i < entries->n_entries; i++)
		must(is_printable(entries->entries[i].state) &&
		     is_printable(entries->entries[i].address));
	mix(userdata, entries, sizeof(*entries));
}

static void on_new_identity(void *userdata)
{
	mix(userdata, "n", 1);
}

static void on_bandwidth(void *userdata, const struct tor_bandwidth *b)
{
	mix(userdata, b, sizeof(*b));
}

static const struct tor_control_callbacks callbacks = {
	.ready = on_ready,
	.version = on_version,
	.bootstrap = on_bootstrap,
	.circuit_established = on_circuit,
	.clock_skew = on_clock_skew,
	.relays = on_relays,
	.circuits = on_circuits,
	.entries = on_entries,
	.new_identity = on_new_identity,
	.bandwidth = on_bandwidth,
	.log = on_log,
};

static uint64_t run(const uint8_t *data, size_t size, size_t piece)
{
	uint64_t hash = 0;
	struct tor_control *c = tor_control_new(&callbacks, &hash);
	int r = 0;

	must(c && tor_control_connected(c) == 0);
	for (size_t at = 0; at < size && r == 0; at += piece)
		r = tor_control_push(c, data + at,
				     size - at < piece ? size - at : piece,
				     NULL);
	mix(&hash, &r, sizeof(r));
	/* The same bytes once more, as the answers to all questions, each of
	 * them being the first once. */
	for (int first = 0; first < TOR_QUESTION_COUNT; first++) {
		if (tor_control_ask(c, (enum tor_question)first) < 0)
			break;
		for (int q = 0; q < TOR_QUESTION_COUNT; q++)
			tor_control_ask(c, (enum tor_question)q);
		for (size_t at = 0; at < size && r == 0; at += piece)
			r = tor_control_push(
				c, data + at,
				size - at < piece ? size - at : piece, NULL);
		mix(&hash, &r, sizeof(r));
	}
	tor_control_free(c);
	return hash;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	must(run(data, size, size + 1) == run(data, size, 5));
	return 0;
}
