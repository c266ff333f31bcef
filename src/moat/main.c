/*
 * torvm-moat - ask the Tor Project's bridge service
 *
 * Theory of operation
 *
 * "torvm bridges request" may be root, and an answer from the network is
 * hostile text. So TLS, HTTP and JSON happen in here: a process of its own that
 * was started without privileges and without an environment. It reads what to
 * ask from standard input, lines of "KEY VALUE",
 *
 *	question settings | defaults | builtin | map | countries
 *	url URL			of the service; the question's name is appended
 *	proxy HOST:PORT		a SOCKS5 proxy that also resolves names
 *	through ADDRESS:PORT	where whoever connects talks to the service
 *	country CC
 *	transport NAME
 *
 * and writes the answer to standard output, lines again, the last being "end":
 *
 *	bridge LINE		checked; the reader checks it once more
 *	country CC
 *	none			Tor works there without bridges
 *	left-out N		bridges that TorVM cannot use
 *	text WORDS		for people
 *	error SENTENCE		instead of all others
 *
 * No redirection is followed, no name is resolved here when there is a proxy or
 * a way through, and plain HTTP is for a test's own server on this computer
 *only.
 */
#include <ctype.h>
#include <curl/curl.h>
#include <errno.h>
#include <string.h>
#include <signal.h>
#include <sys/prctl.h>

#include "moat/answer.h"

#define LINE_MAX_BYTES 1024
/* Through Tor, a circuit may have to be built first. */
#define CONNECT_TIMEOUT_S 60L
#define TIMEOUT_S 120L

struct request {
	int question;
	char url[LINE_MAX_BYTES];
	char proxy[LINE_MAX_BYTES];
	char through[LINE_MAX_BYTES];
	char country[3];
	int transport;
};

struct body {
	char *data;
	size_t len;
};

static int fail(const char *text)
{
	printf("error ");
	for (const char *s = text; *s; s++)
		putchar(*s >= 0x20 && *s < 0x7f ? *s : '?');
	printf("\nend\n");
	return 1;
}

static int transport_from_name(const char *name)
{
	for (int t = 0; t < CONFIG_TRANSPORT_COUNT; t++)
		if (!strcmp(config_transport_name(t), name))
			return t;
	return -1;
}

static int take(struct request *q, const char *key, const char *value)
{
	if (!strcmp(key, "question"))
		q->question = moat_question_from_name(value);
	else if (!strcmp(key, "url"))
		return str_copy(q->url, sizeof(q->url), value);
	else if (!strcmp(key, "proxy"))
		return str_copy(q->proxy, sizeof(q->proxy), value);
	else if (!strcmp(key, "through"))
		return str_copy(q->through, sizeof(q->through), value);
	else if (!strcmp(key, "country"))
		return str_copy(q->country, sizeof(q->country), value);
	else if (!strcmp(key, "transport"))
		q->transport = transport_from_name(value);
	else
		return -EINVAL;
	return 0;
}

static int read_request(struct request *q)
{
	char line[LINE_MAX_BYTES + 32];

	*q = (struct request){ .question = -1, .transport = -1 };
	while (fgets(line, sizeof(line), stdin)) {
		char *value = strchr(line, ' ');

		line[strcspn(line, "\n")] = '\0';
		if (!value)
			return -EINVAL;
		*value++ = '\0';
		if (take(q, line, value) < 0)
			return -EINVAL;
	}
	return q->question < 0 || !q->url[0] ? -EINVAL : 0;
}

static size_t on_data(char *data, size_t size, size_t n, void *userdata)
{
	struct body *b = userdata;
	size_t len = size * n;
	char *grown;

	if (len > MOAT_ANSWER_MAX - b->len)
		return 0;
	grown = realloc(b->data, b->len + len + 1);
	if (!grown)
		return 0;
	b->data = grown;
	memcpy(b->data + b->len, data, len);
	b->len += len;
	return len;
}

/* Return: owned by the caller, who keeps it until the end; NULL: no need, or
 * out of memory */
static struct curl_slist *set_way(CURL *curl, const struct request *q)
{
	char entry[LINE_MAX_BYTES + 2];
	struct curl_slist *way;

	if (!q->through[0])
		return NULL;
	/* Whatever the URL's host and port are; TLS still asks for that host.
	 */
	snprintf(entry, sizeof(entry), "::%s", q->through);
	way = curl_slist_append(NULL, entry);
	curl_easy_setopt(curl, CURLOPT_CONNECT_TO, way);
	return way;
}

static void set_options(CURL *curl, const struct request *q, const char *url,
			struct body *body, char *why)
{
	char proxy[LINE_MAX_BYTES + 16];

	curl_easy_setopt(curl, CURLOPT_URL, url);
	curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, why);
	curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_data);
	curl_easy_setopt(curl, CURLOPT_WRITEDATA, body);
	curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 0L);
	curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, CONNECT_TIMEOUT_S);
	curl_easy_setopt(curl, CURLOPT_TIMEOUT, TIMEOUT_S);
	curl_easy_setopt(curl, CURLOPT_SSLVERSION,
			 (long)CURL_SSLVERSION_TLSv1_2);
	curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "https,http");
	curl_easy_setopt(curl, CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
	/* "": none, whatever the environment says. */
	snprintf(proxy, sizeof(proxy), "%s%s", q->proxy[0] ? "socks5h://" : "",
		 q->proxy);
	curl_easy_setopt(curl, CURLOPT_PROXY, proxy);
}

static int ask(const struct request *q, struct body *body)
{
	char url[2 * LINE_MAX_BYTES], why[CURL_ERROR_SIZE] = "", text[600];
	struct curl_slist *headers = NULL, *way;
	CURL *curl = curl_easy_init();
	bool out_of_memory;
	char *post =
		moat_request_body((enum moat_question)q->question, q->country,
				  q->transport, &out_of_memory);
	long status = 0;
	CURLcode code;

	if (!curl || out_of_memory)
		return fail("out of memory");
	snprintf(url, sizeof(url), "%s/%s", q->url,
		 moat_question_name((enum moat_question)q->question));
	set_options(curl, q, url, body, why);
	way = set_way(curl, q);
	if (q->through[0] && !way)
		return fail("out of memory");
	if (post) {
		headers = curl_slist_append(
			NULL, "Content-Type: application/vnd.api+json");
		curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
		curl_easy_setopt(curl, CURLOPT_POSTFIELDS, post);
	}
	code = curl_easy_perform(curl);
	curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
	curl_slist_free_all(headers);
	curl_slist_free_all(way);
	curl_easy_cleanup(curl);
	free(post);
	if (code == CURLE_WRITE_ERROR)
		return fail("the answer is too long for the bridge service's");
	if (code != CURLE_OK) {
		snprintf(text, sizeof(text),
			 "the bridge service was not reached: %s",
			 why[0] ? why : curl_easy_strerror(code));
		return fail(text);
	}
	/* Refusals have an answer, too. */
	if (status >= 300 && status < 400)
		return fail("the answer leads to another address: a login page "
			    "of the network, or something in between");
	return 0;
}

static void print_answer(const struct moat_answer *a)
{
	if (a->country[0])
		printf("country %s\n", a->country);
	if (a->none_needed)
		puts("none");
	for (size_t i = 0; i < a->bridges.n_lines; i++)
		printf("bridge %s\n", a->bridges.lines[i]);
	if (a->n_left_out > 0)
		printf("left-out %zu\n", a->n_left_out);
	for (size_t i = 0; i < a->n_texts; i++)
		printf("text %s\n", a->texts[i]);
	puts("end");
}

int main(void)
{
	struct moat_answer answer = MOAT_ANSWER_NULL(answer);
	struct error e = ERROR_NULL(e);
	struct body body = { 0 };
	struct request q;
	int r;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (read_request(&q) < 0)
		return fail("a fault in TorVM: the request is wrong");
	if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
		return fail("libcurl does not work");
	r = ask(&q, &body);
	if (r == 0) {
		r = moat_answer_parse((enum moat_question)q.question,
				      q.transport, body.data ? body.data : "",
				      body.len, &answer, &e);
		if (r < 0)
			fail(e.text);
		else
			print_answer(&answer);
	}
	moat_answer_deinit(&answer);
	free(body.data);
	return r == 0 ? 0 : 1;
}
