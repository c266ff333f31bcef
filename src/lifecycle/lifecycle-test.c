/*
 * The table is checked in three ways: each cell alone, walks of a model of the
 * host with failures injected at every effect, and walks of arbitrary events
 * that no sane executor would feed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/util.h"
#include "lifecycle/lifecycle.h"

static uint32_t next_random(uint32_t *seed)
{
	/* xorshift32: the same walk on every machine for the same seed. */
	*seed ^= *seed << 13;
	*seed ^= *seed >> 17;
	*seed ^= *seed << 5;
	return *seed;
}

static void every_name_is_there(void **state)
{
	for (int i = 0; i < LIFECYCLE_STATE_COUNT; i++)
		assert_non_null(lifecycle_state_name(i));
	for (int i = 0; i < LIFECYCLE_EVENT_COUNT; i++)
		assert_non_null(lifecycle_event_name(i));
	for (int i = 0; i < LIFECYCLE_EFFECT_COUNT; i++)
		assert_non_null(lifecycle_effect_name(i));
}

static void check_way(int state, int event, const struct lifecycle_way *way)
{
	bool ended = false, refuses = false;

	assert_in_range(way->next, 0, LIFECYCLE_STATE_COUNT - 1);
	assert_in_range(way->guard, 0, LIFECYCLE_GUARD_COUNT - 1);
	for (int i = 0; i < LIFECYCLE_EFFECTS_MAX; i++) {
		int effect = way->effects[i];

		assert_in_range(effect, 0, LIFECYCLE_EFFECT_COUNT - 1);
		/* No effect hides behind the list's end. */
		if (ended)
			assert_int_equal(effect, LIFECYCLE_EFFECT_NONE);
		ended |= effect == LIFECYCLE_EFFECT_NONE;
		refuses |= effect == LIFECYCLE_EFFECT_REFUSE_TAP;

		if (effect == LIFECYCLE_EFFECT_UNBLOCK)
			assert_int_equal(way->next,
					 LIFECYCLE_STATE_RESTORE_NETWORK);
		if (effect == LIFECYCLE_EFFECT_BLOCK)
			assert_int_equal(state,
					 LIFECYCLE_STATE_CHECK_PRIVILEGES);
	}
	/* States that may have opened the TAP refuse it when they fail. */
	if (state >= LIFECYCLE_STATE_CONFIGURE_TAP &&
	    state <= LIFECYCLE_STATE_RUNNING &&
	    (way->next < state || way->next >= LIFECYCLE_STATE_BLOCKED))
		if (!refuses)
			fail_msg("%s on %s leaves the TAP open",
				 lifecycle_state_name(state),
				 lifecycle_event_name(event));
}

static void every_cell_is_explicit(void **unused)
{
	for (int s = 0; s < LIFECYCLE_STATE_COUNT; s++) {
		for (int e = 0; e < LIFECYCLE_EVENT_COUNT; e++) {
			const struct lifecycle_cell *c = lifecycle_cell(s, e);
			bool last = false;

			if (c->kind == LIFECYCLE_KIND_UNSET)
				fail_msg("hole: %s on %s",
					 lifecycle_state_name(s),
					 lifecycle_event_name(e));
			if (c->kind != LIFECYCLE_KIND_GO) {
				static const struct lifecycle_way none[3];

				assert_memory_equal(c->ways, none,
						    sizeof(none));
				continue;
			}
			for (int w = 0; w < LIFECYCLE_WAYS_MAX && !last; w++) {
				check_way(s, e, &c->ways[w]);
				last = !c->ways[w].guard;
			}
			/* lifecycle_step() stops at a way without guard. */
			assert_true(last);
		}
	}
}

static void stop_is_accepted_everywhere(void **unused)
{
	for (int s = 0; s < LIFECYCLE_STATE_COUNT; s++) {
		const struct lifecycle_guards guards = { 0 };
		struct lifecycle_step step =
			lifecycle_step(s, LIFECYCLE_EVENT_STOP, &guards);

		assert_int_not_equal(step.kind, LIFECYCLE_KIND_IMPOSSIBLE);
		if (s < LIFECYCLE_STATE_SHUTDOWN) {
			assert_int_equal(step.kind, LIFECYCLE_KIND_GO);
			assert_in_range(step.next, LIFECYCLE_STATE_SHUTDOWN,
					LIFECYCLE_STATE_CLEANUP);
		}
	}
}

/* Only a stop, and the two failures before anything is protected, end it. */
static void nothing_but_stop_ends_the_protection(void **unused)
{
	for (int s = LIFECYCLE_STATE_CREATE_TAP; s < LIFECYCLE_STATE_SHUTDOWN;
	     s++)
		for (int e = 0; e < LIFECYCLE_EVENT_COUNT; e++)
			for (int g = 0; g < 8; g++) {
				struct lifecycle_guards guards = {
					.relaunch = g & 1,
					.vm_alive = g & 2,
					.tap_present = g & 4,
				};

				if (e != LIFECYCLE_EVENT_STOP)
					assert_true(
						lifecycle_step(s, e, &guards)
							.next <
						LIFECYCLE_STATE_SHUTDOWN);
			}
}

/* The host as the effects leave it. */
struct world {
	enum lifecycle_state state;
	struct lifecycle_guards guards;
	bool block, tap, tap_open, dns, vm, retry, stopping, exited, announced;
	bool asked_guest, asked_tor, restore_failed;
	/* Outcomes on their way, with the state that asked. */
	struct {
		enum lifecycle_event event;
		unsigned int epoch;
	} pending[64];
	size_t n_pending;
	unsigned int epoch;
	uint32_t seed;
	unsigned int fail_percent;
	int fail_effect; /* this one always, or -1 */
	bool seen[LIFECYCLE_STATE_COUNT];
};

static void assert_protected(const struct world *w)
{
	if ((w->tap || w->dns || w->vm || w->tap_open) && !w->block)
		fail_msg("%s without the block: tap %d dns %d vm %d open %d",
			 lifecycle_state_name(w->state), w->tap, w->dns, w->vm,
			 w->tap_open);
}

static void feed(struct world *w, enum lifecycle_event event);

static void perform(struct world *w, enum lifecycle_effect effect)
{
	bool ok = next_random(&w->seed) % 100 >= w->fail_percent &&
		  (int)effect != w->fail_effect;
	enum lifecycle_event event = lifecycle_outcome(effect, ok);

	switch (effect) {
	case LIFECYCLE_EFFECT_NONE:
	case LIFECYCLE_EFFECT_COUNT:
	case LIFECYCLE_EFFECT_CHECK: break;
	case LIFECYCLE_EFFECT_BLOCK:
		assert_false(w->tap || w->dns || w->vm);
		w->block = ok;
		break;
	case LIFECYCLE_EFFECT_CREATE_TAP: w->tap = ok; break;
	case LIFECYCLE_EFFECT_LAUNCH_VM:
		assert_false(w->vm); /* never two */
		assert_true(w->tap || w->guards.tap_present == w->tap);
		ok = ok && w->tap;
		event = lifecycle_outcome(effect, ok);
		w->vm = ok;
		w->asked_guest = w->asked_tor = false;
		break;
	case LIFECYCLE_EFFECT_ADOPT_VM: assert_true(w->vm); break;
	case LIFECYCLE_EFFECT_KILL_VM: w->vm = false; break;
	case LIFECYCLE_EFFECT_STOP_VM: w->vm = false; break;
	case LIFECYCLE_EFFECT_CONFIGURE_TAP: w->tap_open = ok; break;
	case LIFECYCLE_EFFECT_REFUSE_TAP:
		w->tap_open = false; /* harmless when it failed */
		break;
	case LIFECYCLE_EFFECT_SET_DNS:
		assert_true(w->tap_open);
		w->dns = ok;
		break;
	case LIFECYCLE_EFFECT_ASK_GUEST: w->asked_guest = true; return;
	case LIFECYCLE_EFFECT_ASK_TOR: w->asked_tor = true; return;
	case LIFECYCLE_EFFECT_ANNOUNCE:
		assert_true(w->tap_open && w->vm && w->tap);
		w->announced = true;
		break;
	case LIFECYCLE_EFFECT_SCHEDULE_RETRY: w->retry = true; return;
	case LIFECYCLE_EFFECT_DELETE_TAP:
		assert_false(w->vm);
		w->tap = w->tap_open = false;
		w->restore_failed |= !ok;
		break;
	case LIFECYCLE_EFFECT_RESTORE_DNS:
		assert_false(w->tap);
		w->dns = false;
		w->restore_failed |= !ok;
		break;
	case LIFECYCLE_EFFECT_UNBLOCK:
		assert_false(w->tap || w->dns || w->vm || w->tap_open);
		w->block = false;
		if (w->restore_failed)
			event = LIFECYCLE_EVENT_RESTORE_FAILED;
		break;
	case LIFECYCLE_EFFECT_EXIT:
		assert_false(w->block);
		w->exited = true;
		break;
	}
	assert_protected(w);
	if (event != LIFECYCLE_EVENT_COUNT) {
		assert_true(w->n_pending < ARRAY_SIZE(w->pending));
		w->pending[w->n_pending].event = event;
		w->pending[w->n_pending++].epoch = w->epoch;
	}
}

static void feed(struct world *w, enum lifecycle_event event)
{
	struct lifecycle_step step;

	w->guards.vm_alive = w->vm;
	w->guards.tap_present = w->tap;
	step = lifecycle_step(w->state, event, &w->guards);
	if (step.kind == LIFECYCLE_KIND_IMPOSSIBLE)
		fail_msg("%s on %s", lifecycle_state_name(w->state),
			 lifecycle_event_name(event));
	if (step.kind != LIFECYCLE_KIND_GO)
		return;
	if (step.next != w->state)
		w->epoch++;
	if (step.next != LIFECYCLE_STATE_BLOCKED)
		w->retry = false;
	w->state = step.next;
	w->seen[step.next] = true;
	for (int i = 0; step.effects[i]; i++)
		perform(w, step.effects[i]);
	assert_protected(w);
}

/* One thing that happens: an outcome arrives or the world changes. */
static void happen(struct world *w, bool faults)
{
	uint32_t dice = next_random(&w->seed) % 100;

	w->guards.relaunch = faults && next_random(&w->seed) % 4 == 0;
	if (w->n_pending && (dice < 70 || !faults)) {
		enum lifecycle_event event = w->pending[0].event;
		bool late = w->pending[0].epoch != w->epoch;

		w->n_pending--;
		memmove(w->pending, w->pending + 1,
			w->n_pending * sizeof(w->pending[0]));
		if (!late)
			feed(w, event);
	} else if (faults && dice < 74 && w->vm) {
		w->vm = false;
		feed(w, LIFECYCLE_EVENT_VM_EXITED);
	} else if (faults && dice < 78 && w->vm) {
		feed(w, LIFECYCLE_EVENT_VM_SILENT);
	} else if (faults && dice < 81 && w->vm) {
		feed(w, LIFECYCLE_EVENT_TOR_LOST);
	} else if (faults && dice < 83 && w->tap) {
		w->tap = w->tap_open = w->dns = false;
		feed(w, LIFECYCLE_EVENT_TAP_LOST);
	} else if (w->vm && w->asked_tor) {
		w->asked_tor = false;
		feed(w, LIFECYCLE_EVENT_BOOTSTRAPPED);
	} else if (w->vm && w->asked_guest) {
		w->asked_guest = false;
		feed(w, LIFECYCLE_EVENT_GUEST_UP);
	} else if (w->retry) {
		w->retry = false;
		feed(w, LIFECYCLE_EVENT_RETRY);
	}
}

static void stop_and_drain(struct world *w)
{
	feed(w, LIFECYCLE_EVENT_STOP);
	for (int i = 0; i < 100 && !w->exited; i++)
		happen(w, false);
	assert_true(w->exited);
	assert_false(w->block || w->tap || w->dns || w->vm || w->tap_open);
}

static void plain_start_and_stop_in_the_blueprints_order(void **unused)
{
	static const enum lifecycle_state order[] = {
		LIFECYCLE_STATE_CHECK_PRIVILEGES,
		LIFECYCLE_STATE_SAVE_NETWORK,
		LIFECYCLE_STATE_CREATE_TAP,
		LIFECYCLE_STATE_LAUNCH_VM,
		LIFECYCLE_STATE_WAIT_TAP,
		LIFECYCLE_STATE_CONFIGURE_TAP,
		LIFECYCLE_STATE_FLUSH_DNS,
		LIFECYCLE_STATE_WAIT_BOOTSTRAP,
		LIFECYCLE_STATE_RUNNING,
		LIFECYCLE_STATE_SHUTDOWN,
		LIFECYCLE_STATE_RESTORE_NETWORK,
		LIFECYCLE_STATE_CLEANUP,
	};
	struct world w = { .seed = 1, .fail_effect = -1 };
	size_t n = 0;

	feed(&w, LIFECYCLE_EVENT_START);
	for (int i = 0; i < 50 && !w.exited; i++) {
		if (n == 0 || w.state != order[n - 1])
			assert_int_equal(w.state, order[n++]);
		if (w.state == LIFECYCLE_STATE_RUNNING)
			feed(&w, LIFECYCLE_EVENT_STOP);
		else
			happen(&w, false);
	}
	if (w.state != order[n - 1])
		assert_int_equal(w.state, order[n++]);
	assert_int_equal(n, ARRAY_SIZE(order));
	assert_true(w.exited);
}

static void walks_with_faults_stay_protected(void **unused)
{
	bool seen[LIFECYCLE_STATE_COUNT] = { [LIFECYCLE_STATE_INIT] = true };

	for (uint32_t seed = 1; seed <= 2000; seed++) {
		struct world w = { .seed = seed * 2654435761u,
				   .fail_percent = seed % 30,
				   .fail_effect = -1 };

		if (seed % 4 == 0) {
			w.block = true;
			w.tap = seed % 8 == 0;
			w.vm = w.tap && seed % 16 == 0;
			feed(&w, LIFECYCLE_EVENT_ADOPT);
		} else {
			feed(&w, LIFECYCLE_EVENT_START);
		}
		for (int i = 0; i < 200 && !w.exited; i++)
			happen(&w, true);
		if (!w.exited)
			stop_and_drain(&w);
		for (int s = 0; s < LIFECYCLE_STATE_COUNT; s++)
			seen[s] |= w.seen[s];
	}
	for (int s = 0; s < LIFECYCLE_STATE_COUNT; s++)
		if (!seen[s])
			fail_msg("%s was never reached",
				 lifecycle_state_name(s));
}

static void every_failing_effect_blocks_or_exits(void **unused)
{
	for (int effect = 1; effect < LIFECYCLE_EFFECT_COUNT; effect++) {
		struct world w = { .seed = 7, .fail_effect = effect };

		feed(&w, LIFECYCLE_EVENT_START);
		for (int i = 0; i < 100 && !w.exited; i++)
			happen(&w, false);
		if (w.exited) {
			assert_true(effect == LIFECYCLE_EFFECT_CHECK ||
				    effect == LIFECYCLE_EFFECT_BLOCK);
			assert_false(w.announced);
			continue;
		}
		assert_true(w.block);
		if (effect == LIFECYCLE_EFFECT_CREATE_TAP ||
		    effect == LIFECYCLE_EFFECT_LAUNCH_VM ||
		    effect == LIFECYCLE_EFFECT_CONFIGURE_TAP ||
		    effect == LIFECYCLE_EFFECT_SET_DNS) {
			assert_true(w.seen[LIFECYCLE_STATE_BLOCKED]);
			assert_false(w.announced);
		}
		/* The cause goes away: it gets through by itself. */
		w.fail_effect = -1;
		for (int i = 0; i < 100 && !w.announced; i++)
			happen(&w, false);
		assert_true(w.announced);
		w.fail_effect = effect;
		stop_and_drain(&w);
	}
}

/* Events that no executor would feed, in any order: still never unprotected. */
static void walks_of_nonsense_stay_protected(void **unused)
{
	for (uint32_t seed = 1; seed <= 2000; seed++) {
		uint32_t r = seed * 2654435761u;
		enum lifecycle_state state = LIFECYCLE_STATE_INIT;
		bool block = false, changed = false;

		for (int i = 0; i < 300; i++) {
			enum lifecycle_event event =
				next_random(&r) % LIFECYCLE_EVENT_COUNT;
			struct lifecycle_guards guards = {
				.relaunch = next_random(&r) & 1,
				.vm_alive = next_random(&r) & 1,
				.tap_present = next_random(&r) & 1,
			};
			struct lifecycle_step step =
				lifecycle_step(state, event, &guards);

			if (state == LIFECYCLE_STATE_INIT &&
			    event == LIFECYCLE_EVENT_ADOPT)
				block = true;
			for (int k = 0; step.effects[k]; k++) {
				enum lifecycle_effect f = step.effects[k];

				if (f == LIFECYCLE_EFFECT_BLOCK)
					block = true;
				if (f == LIFECYCLE_EFFECT_CREATE_TAP ||
				    f == LIFECYCLE_EFFECT_LAUNCH_VM ||
				    f == LIFECYCLE_EFFECT_CONFIGURE_TAP ||
				    f == LIFECYCLE_EFFECT_SET_DNS) {
					assert_true(block);
					changed = true;
				}
				if (f == LIFECYCLE_EFFECT_DELETE_TAP)
					changed = false;
				if (f == LIFECYCLE_EFFECT_UNBLOCK) {
					assert_false(changed);
					block = false;
				}
			}
			state = step.next;
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_name_is_there),
		cmocka_unit_test(every_cell_is_explicit),
		cmocka_unit_test(stop_is_accepted_everywhere),
		cmocka_unit_test(nothing_but_stop_ends_the_protection),
		cmocka_unit_test(plain_start_and_stop_in_the_blueprints_order),
		cmocka_unit_test(walks_with_faults_stay_protected),
		cmocka_unit_test(every_failing_effect_blocks_or_exits),
		cmocka_unit_test(walks_of_nonsense_stay_protected),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
