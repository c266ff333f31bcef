/* Answers of the bridge service, to each question. */
#include "fuzz.h"

#include <string.h>

#include "config/bridge_line.h"
#include "moat/answer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	for (int question = 0; question < MOAT_QUESTION_COUNT; question++) {
		struct moat_answer a = MOAT_ANSWER_NULL(a);
		struct error e = ERROR_NULL(e);
		int r = moat_answer_parse((enum moat_question)question,
					  (int)(size % 6) - 1,
					  (const char *)data, size, &a, &e);

		must(r == 0 || (e.code == r && is_printable(e.text)));
		must(a.n_texts <= MOAT_TEXTS_MAX);
		for (size_t i = 0; i < a.n_texts; i++)
			must(is_printable(a.texts[i]));
		for (size_t i = 0; i < a.bridges.n_lines; i++) {
			struct config_problem p;

			must(is_printable(a.bridges.lines[i]));
			must(config_check_bridge_line(a.bridges.lines[i], &p) ==
			     0);
		}
		moat_answer_deinit(&a);
	}
	return 0;
}
