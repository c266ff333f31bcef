/* A resolver's answer, and what a transport or the TLS client says: none is
 * read beyond. */
#include "fuzz.h"

#include <string.h>

#include "base/ip.h"
#include "init/dns.h"
#include "init/pt.h"
#include "init/tls_log.h"

static void read_pt(const uint8_t *data, size_t size)
{
	char line[GUEST_LINE_MAX];
	struct pt_line said;
	struct tls_line tls;

	if (size >= sizeof(line))
		return;
	memcpy(line, data, size);
	line[size] = '\0';
	tls = tls_parse(line);
	must(tls.kind == TLS_KIND_READY ||
	     (tls.text >= line && tls.text <= line + strlen(line)));
	said = pt_parse(line, "obfs4");
	must((said.kind == PT_KIND_METHOD) == (said.port != 0));
	must(said.kind != PT_KIND_ERROR || said.text);
	must(said.kind != PT_KIND_LOG || strlen(said.text) < sizeof(line));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const enum dns_type types[] = { DNS_TYPE_A, DNS_TYPE_AAAA };
	struct dns_result result;

	for (int t = 0; t < 2; t++) {
		if (dns_answer(data, size, 0x1234, "a.example", types[t],
			       &result) < 0)
			continue;
		must(result.n > 0 && result.n <= GUEST_NAME_ADDRESSES_MAX);
		for (size_t i = 0; i < result.n; i++)
			must(ip_is_unicast(&result.addresses[i]) &&
			     ip_is_v4(&result.addresses[i]) ==
				     (types[t] == DNS_TYPE_A));
	}
	read_pt(data, size);
	return 0;
}
