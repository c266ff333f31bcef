/*
 * The client against a scripted controller: a thread that accepts one
 * connection on a real socket, notes what it is asked, and plays its script.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <cmocka.h>

#include "client/client.h"

#define STATUS(state, percent)                                                                                                                                                              \
	"{\"state\":\"" state "\",\"since\":\"2026-01-02T03:04:05Z\","                                                                                                                      \
	"\"blocked\":true,\"lockdown\":true,\"lan_access\":true,"                                                                                                                           \
	"\"bootstrap\":{\"percent\":" percent                                                                                                                                               \
	",\"tag\":\"t\",\"summary\":\"s\"},\"accel\":\"tcg\","                                                                                                                              \
	"\"vm\":{\"pid\":42,\"uptime\":7},"                                                                                                                                                 \
	"\"tor\":{\"version\":\"0.4.9\",\"circuit_established\":false},"                                                                                                                    \
	"\"entry\":\"obfs4\",\"tried\":[\"direct: timeout\"],\"alarms\":[\"bell\"],\"refused\":3,\"refused_by\":[{\"uid\":1000,\"packets\":2}],\"stages\":{\"Init\":1,\"SaveNetwork\":20}," \
	"\"version\":\"0.1.0\"}"
#define REPLY(state, percent, continues)       \
	"{\"parameters\":{\"status\":" STATUS( \
		state, percent) "},\"continues\":" continues "}"

struct server {
	char dir[64];
	char socket[96];
	int fd;
	pthread_t thread;
	const char *const *script; /* messages; NULL ends and hangs up */
	bool keep_open;            /* instead of hanging up */
	int release[2];            /* written to end keep_open */
	char call[1024];           /* what came */
};

static void *serve(void *userdata)
{
	struct server *s = userdata;
	int fd = accept(s->fd, NULL, NULL);
	size_t used = 0;
	char byte;

	while (used < sizeof(s->call) - 1 && read(fd, &byte, 1) == 1 && byte)
		s->call[used++] = byte;
	for (size_t i = 0; s->script[i]; i++)
		if (send(fd, s->script[i], strlen(s->script[i]) + 1,
			 MSG_NOSIGNAL) < 0)
			break;
	if (s->keep_open && read(s->release[0], &byte, 1) < 0)
		abort();
	close(fd);
	return NULL;
}

static int setup(void **state)
{
	struct server *s = calloc(1, sizeof(*s));
	struct sockaddr_un addr = { .sun_family = AF_UNIX };

	*state = s;
	strcpy(s->dir, "/tmp/torvm-client-XXXXXX");
	if (!mkdtemp(s->dir) || pipe(s->release) < 0)
		return -1;
	snprintf(s->socket, sizeof(s->socket), "%s/control.sock", s->dir);
	str_copy(addr.sun_path, sizeof(addr.sun_path), s->socket);
	s->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (bind(s->fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 ||
	    listen(s->fd, 4) < 0)
		return -1;
	return 0;
}

static int teardown(void **state)
{
	struct server *s = *state;
	char journal[128];

	close(s->fd);
	close(s->release[0]);
	close(s->release[1]);
	snprintf(journal, sizeof(journal), "%s/journal", s->dir);
	unlink(journal);
	unlink(s->socket);
	rmdir(s->dir);
	free(s);
	return 0;
}

static struct client *start(struct server *s, const char *const *script)
{
	struct error e = ERROR_NULL(e);
	struct client *c = NULL;

	s->script = script;
	assert_int_equal(pthread_create(&s->thread, NULL, serve, s), 0);
	if (client_connect(s->dir, &c, &e) < 0)
		fail_msg("%s", e.text);
	return c;
}

static void finish(struct server *s, struct client *c)
{
	if (s->keep_open)
		assert_int_equal(write(s->release[1], "x", 1), 1);
	pthread_join(s->thread, NULL);
	client_free(c);
}

static void a_status_is_read_whole(void **state)
{
	static const char *const script[] = {
		REPLY("WaitBootstrap", "45", "false"), NULL
	};
	struct server *s = *state;
	struct client *c = start(s, script);
	struct error e = ERROR_NULL(e);
	struct client_status st;

	assert_int_equal(client_get_status(c, &st, &e), 0);
	finish(s, c);
	assert_non_null(strstr(s->call, "org.torvm.Controller.GetStatus"));
	assert_null(strstr(s->call, "more"));
	assert_string_equal(st.state, "WaitBootstrap");
	assert_string_equal(st.since, "2026-01-02T03:04:05Z");
	assert_true(st.blocked);
	assert_true(st.lockdown);
	assert_true(st.lan_access);
	assert_int_equal(st.bootstrap_percent, 45);
	assert_string_equal(st.accel, "tcg");
	assert_int_equal(st.vm_pid, 42);
	assert_int_equal(st.vm_uptime, 7);
	assert_string_equal(st.tor_version, "0.4.9");
	assert_string_equal(st.last_error, "");
	assert_int_equal(st.confirm_left, -1);
	assert_int_equal(st.n_alarms, 1);
	assert_string_equal(st.alarms[0], "bell");
	assert_string_equal(st.entry, "obfs4");
	assert_int_equal(st.n_tried, 1);
	assert_string_equal(st.tried[0], "direct: timeout");
	assert_int_equal(st.refused, 3);
	assert_int_equal(st.n_refused_by, 1);
	assert_int_equal(st.refused_by[0].uid, 1000);
	assert_int_equal(st.refused_by[0].packets, 2);
	assert_int_equal(st.n_stages, 2);
	assert_string_equal(st.stages[1].name, "SaveNetwork");
	assert_int_equal(st.stages[1].ms, 20);
}

static int count(void *userdata, const struct client_status *status)
{
	++*(int *)userdata;
	return !strcmp(status->state, "Running") ? 77 : 0;
}

static void a_watch_ends_when_the_callback_says_so(void **state)
{
	static const char *const script[] = {
		REPLY("LaunchVM", "0", "true"),
		REPLY("WaitBootstrap", "9", "true"),
		REPLY("Running", "100", "true"),
		REPLY("Running", "100", "true"), NULL
	};
	struct server *s = *state;
	struct client *c = start(s, script);
	struct error e = ERROR_NULL(e);
	int n = 0;

	assert_int_equal(client_watch_status(c, count, &n, &e), 77);
	assert_int_equal(n, 3);
	finish(s, c);
	assert_non_null(strstr(s->call, "\"more\":true"));
}

static void a_watch_ends_with_the_controller(void **state)
{
	static const char *const script[] = { REPLY("LaunchVM", "0", "true"),
					      NULL };
	struct server *s = *state;
	struct client *c = start(s, script);
	struct error e = ERROR_NULL(e);
	int n = 0;

	assert_int_equal(client_watch_status(c, count, &n, &e), 0);
	assert_int_equal(n, 1);
	finish(s, c);
}

static void a_stop_tells_whether_it_was_finished(void **state)
{
	static const char *const whole[] = {
		REPLY("Shutdown", "100", "true"),
		REPLY("RestoreNetwork", "0", "true"),
		REPLY("Cleanup", "0", "false"), NULL
	};
	static const char *const cut[] = { REPLY("Shutdown", "100", "true"),
					   NULL };
	struct server *s = *state;
	struct error e = ERROR_NULL(e);
	struct client *c;
	int n = 0;

	c = start(s, whole);
	assert_int_equal(client_stop(c, count, &n, &e), 0);
	assert_int_equal(n, 3);
	finish(s, c);
	c = start(s, cut);
	assert_int_equal(client_stop(c, NULL, NULL, &e), -ESRCH);
	finish(s, c);
}

static void a_deadline_ends_the_waiting(void **state)
{
	static const char *const script[] = { REPLY("LaunchVM", "0", "true"),
					      NULL };
	struct server *s = *state;
	struct error e = ERROR_NULL(e);
	struct client *c;
	int n = 0;

	s->keep_open = true;
	c = start(s, script);
	client_set_deadline(c, 30);
	assert_int_equal(client_watch_status(c, count, &n, &e), -ETIMEDOUT);
	assert_int_equal(n, 1);
	finish(s, c);
}

static void a_way_to_the_bridge_service_is_awaited(void **state)
{
	const char *const opens[] = {
		"{\"parameters\":{},\"continues\":true}",
		"{\"parameters\":{\"address\":\"10.10.10.1:9097\"},"
		"\"continues\":true}",
		NULL,
	};
	const char *const not[] = {
		"{\"parameters\":{},\"continues\":true}",
		"{\"error\":\"org.torvm.Controller.MoatNotPossible\","
		"\"parameters\":{\"reason\":\"no image\"}}",
		NULL,
	};
	char address[CLIENT_MOAT_ADDRESS_SIZE];
	struct error e = ERROR_NULL(e);
	struct server *s = *state;
	struct client *c = start(s, opens);

	assert_int_equal(client_open_moat(c, address, &e), 0);
	assert_string_equal(address, "10.10.10.1:9097");
	finish(s, c);
	c = start(s, not);
	assert_int_equal(client_open_moat(c, address, &e), -EHOSTUNREACH);
	assert_string_equal(e.text, "no image");
	finish(s, c);
}

static void errors_become_codes_and_sentences(void **state)
{
	static const struct {
		const char *reply;
		int code;
		const char *part;
	} cases[] = {
		{ "{\"error\":\"org.torvm.Controller.PermissionDenied\"}",
		  -EACCES, "group torvm" },
		{ "{\"error\":\"org.torvm.Controller.NothingToConfirm\"}",
		  -ENOENT, "nothing to confirm" },
		{ "{\"error\":\"org.varlink.service.MethodNotFound\","
		  "\"parameters\":{\"method\":\"x\"}}",
		  -EBADMSG, "same version" },
		{ "]", -EBADMSG, "" },
	};
	struct server *s = *state;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const char *script[] = { cases[i].reply, NULL };
		struct error e = ERROR_NULL(e);
		struct client *c = start(s, script);

		assert_int_equal(client_confirm(c, &e), cases[i].code);
		assert_non_null(strstr(e.text, cases[i].part));
		assert_true(e.text[0] != '\0');
		finish(s, c);
	}
}

static void a_malformed_status_is_refused(void **state)
{
	static const char *const bad[] = {
		"null",
		"{}",
		"[]",
		"{\"state\":1}",
		STATUS("Running", "101"),
		STATUS("Running", "-1"),
		STATUS("Running", "\"45\""),
		STATUS("Running", "4.5"),
	};
	struct client_status st;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		json_t *json = json_loads(bad[i], JSON_DECODE_ANY, NULL);
		struct error e = ERROR_NULL(e);

		assert_non_null(json);
		assert_int_equal(client_status_from_json(json, &st, &e),
				 -EBADMSG);
		json_decref(json);
	}
}

static void a_status_survives_the_round_trip(void **state)
{
	json_t *json = json_loads(STATUS("Running", "100"), 0, NULL), *back;
	struct error e = ERROR_NULL(e);
	struct client_status st, again;

	/* A text too long for its field, cut within a character. */
	for (int i = 0; i < 2; i++) {
		char text[700];

		memset(text, 'x', sizeof(text));
		for (size_t at = 500; at + 2 < sizeof(text); at += 2)
			memcpy(text + at + (size_t)i, "\xc3\xa4", 2);
		text[680] = '\0';
		if (i)
			text[500] = 'y';
		json_object_set_new(json, "last_error",
				    json_stringn(text, 680 + (size_t)i - 2));
		assert_int_equal(client_status_from_json(json, &st, &e), 0);
		back = client_status_to_json(&st);
		assert_non_null(back);
		assert_int_equal(client_status_from_json(back, &again, &e), 0);
		assert_string_equal(st.last_error, again.last_error);
		assert_string_equal(st.state, again.state);
		assert_int_equal(st.vm_pid, again.vm_pid);
		json_decref(back);
	}
	json_decref(json);
}

static int collect(void *userdata, const struct client_log_line *line)
{
	char *buf = userdata;

	strcat(buf, line->level);
	strcat(buf, line->text);
	return 0;
}

static void log_lines_come_in_order(void **state)
{
	static const char *const script[] = {
		"{\"parameters\":{\"lines\":[{\"time\":\"1\",\"level\":\"info\","
		"\"text\":\"a\"},{\"time\":\"2\",\"level\":\"error\",\"text\":"
		"\"b\"}]},\"continues\":true}",
		"{\"parameters\":{\"lines\":[{\"time\":\"3\",\"level\":\"debug\","
		"\"text\":\"c\"}]},\"continues\":true}",
		NULL
	};
	struct server *s = *state;
	struct client *c = start(s, script);
	struct error e = ERROR_NULL(e);
	char text[100] = "";

	assert_int_equal(client_get_log(c, true, collect, text, &e), 0);
	assert_string_equal(text, "infoaerrorbdebugc");
	finish(s, c);
	assert_non_null(strstr(s->call, "\"follow\":true"));
}

static void nobody_home_is_not_running(void **state)
{
	struct server *s = *state;
	struct error e = ERROR_NULL(e);
	struct client_status st;
	struct client *c = NULL;
	char journal[128];
	int fd;

	assert_int_equal(client_connect("/nonexistent/torvm", &c, &e), -ESRCH);
	assert_non_null(strstr(e.text, "torvm up"));
	/* A socket file that nobody listens on any more. */
	close(s->fd);
	s->fd = -1;
	assert_int_equal(client_connect(s->dir, &c, &e), -ESRCH);
	client_status_stopped(s->dir, &st);
	assert_string_equal(st.state, "Stopped");
	assert_false(st.blocked);
	assert_string_equal(st.last_error, "");
	snprintf(journal, sizeof(journal), "%s/journal", s->dir);
	fd = open(journal, O_WRONLY | O_CREAT, 0600);
	close(fd);
	assert_true(client_leftovers(s->dir));
	client_status_stopped(s->dir, &st);
	assert_true(st.blocked);
	assert_non_null(strstr(st.last_error, "torvm recover"));
}

static void long_runtime_directories_work(void **state)
{
	static const char *const script[] = { "{}", NULL };
	struct server *s = *state;
	struct error e = ERROR_NULL(e);
	char deep[300], link[400];
	struct client *c;

	snprintf(deep, sizeof(deep), "%s/%0200d", s->dir, 0);
	assert_int_equal(mkdir(deep, 0700), 0);
	snprintf(link, sizeof(link), "%s/control.sock", deep);
	assert_int_equal(symlink(s->socket, link), 0);
	s->script = script;
	assert_int_equal(pthread_create(&s->thread, NULL, serve, s), 0);
	assert_int_equal(client_connect(deep, &c, &e), 0);
	assert_int_equal(client_confirm(c, &e), 0);
	finish(s, c);
	unlink(link);
	rmdir(deep);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		T(a_status_is_read_whole),
		T(a_watch_ends_when_the_callback_says_so),
		T(a_watch_ends_with_the_controller),
		T(a_stop_tells_whether_it_was_finished),
		T(a_deadline_ends_the_waiting),
		T(a_way_to_the_bridge_service_is_awaited),
		T(errors_become_codes_and_sentences),
		cmocka_unit_test(a_malformed_status_is_refused),
		cmocka_unit_test(a_status_survives_the_round_trip),
		T(log_lines_come_in_order),
		T(nobody_home_is_not_running),
		T(long_runtime_directories_work),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
